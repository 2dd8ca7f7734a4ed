//! CPU time and memory of a tree of processes whose members come and go.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use nix::time::ClockId;
use nix::unistd::Pid;

use super::Usage;
use super::tree::Member;

/// What was counted so far.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// CPU time of each living process at the last reading, by id and moment of its start.
    living: HashMap<(i32, u64), Duration>,
    /// CPU time of those that are gone, each as of the last reading that found it.
    gone: Duration,
    /// CPU time at the last reading, shared between the two modes.
    user: Duration,
    system: Duration,
    /// By the kernel's samples, at the last reading.
    sampled_user: Duration,
    sampled_system: Duration,
    peak_kib: u64,
}

impl Ledger {
    /// Takes a reading; `None` when `root` is not among its members, alive.
    pub(super) fn read(&mut self, root: u32, members: &[Member]) -> Option<Usage> {
        let root = i32::try_from(root).ok()?;
        let head = members.iter().find(|member| member.id == root && !member.is_zombie)?;
        let total = self.count(head, members);
        self.share(total, head, members);
        let (resident_kib, beyond_kib) = memory(members);
        self.peak_kib = self.peak_kib.max(resident_kib + beyond_kib);
        Some(Usage { user: self.user, system: self.system, resident_kib, peak_kib: self.peak_kib })
    }

    /// CPU time of all, those that are gone included; never less than before.
    fn count(&mut self, head: &Member, members: &[Member]) -> Duration {
        let before = std::mem::take(&mut self.living);
        for member in members {
            let key = (member.id, member.started);
            let known = before.get(&key).copied().unwrap_or_default();
            self.living.insert(key, cpu_time(member).max(known));
        }
        let gone = before.iter().filter(|(key, _)| !self.living.contains_key(*key));
        self.gone += gone.map(|(_, time)| *time).sum::<Duration>();
        let told = head.ended_user + head.ended_system;
        let living: Duration = self.living.values().sum();
        (living + self.gone.max(told)).max(self.user + self.system)
    }

    /// Divides what came since the last reading as the samples since then divide, so that neither mode ever
    /// loses time that it had.
    fn share(&mut self, total: Duration, head: &Member, members: &[Member]) {
        let user = head.ended_user + members.iter().map(|member| member.user).sum::<Duration>();
        let system = head.ended_system + members.iter().map(|member| member.system).sum::<Duration>();
        let since = part(user.saturating_sub(self.sampled_user), system.saturating_sub(self.sampled_system));
        let new = total.saturating_sub(self.user + self.system);
        let new_user = new.mul_f64(since.or_else(|| part(user, system)).unwrap_or(1.0)).min(new);
        self.user += new_user;
        self.system += new.saturating_sub(new_user);
        (self.sampled_user, self.sampled_system) = (user, system);
    }
}

/// The share of the first, 0 to 1; `None` of nothing.
fn part(user: Duration, system: Duration) -> Option<f64> {
    let all = (user + system).as_secs_f64();
    (all > 0.0).then(|| user.as_secs_f64() / all)
}

/// By the process's own clock; of one that has just ended, by its ticks.
fn cpu_time(member: &Member) -> Duration {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(member.id)).and_then(ClockId::now);
    clock.map_or(member.user + member.system, Duration::from)
}

/// What is resident, and what each had beyond that at its own peak; in KiB.
fn memory(members: &[Member]) -> (u64, u64) {
    let living: Vec<&Member> = members.iter().filter(|member| !member.is_zombie).collect();
    let is_alone = living.len() == 1;
    let each = living.iter().map(|member| {
        let (rss, pss) = resident(member.id);
        let highest = field(&read(member.id, "status"), "VmHWM:").unwrap_or(0);
        (if is_alone { rss } else { pss }, highest.saturating_sub(rss))
    });
    each.fold((0, 0), |(resident, beyond), (one, more)| (resident + one, beyond + more))
}

/// `Rss` and `Pss`. Of somebody else's process `Rss` alone is told; it stands in for both.
fn resident(id: i32) -> (u64, u64) {
    let rollup = read(id, "smaps_rollup");
    if let (Some(rss), Some(pss)) = (field(&rollup, "Rss:"), field(&rollup, "Pss:")) {
        return (rss, pss);
    }
    let rss = field(&read(id, "status"), "VmRSS:").unwrap_or(0);
    (rss, rss)
}

fn read(id: i32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default()
}

/// The number after a name, in KiB.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}
