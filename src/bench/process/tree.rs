//! Who belongs to a process: its children, theirs, and whoever is in its process group.
//!
//! By the group we find those whose parent has ended; by their parents those that left the group.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

/// Length of the unit in which the kernel tells times of a process: `USER_HZ` is 100 on every machine that
/// Linux runs on today.
const TICK: Duration = Duration::from_millis(10);

/// One process, as `/proc/PID/stat` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: i32,
    parent: i32,
    group: i32,
    /// In ticks since the machine was started; together with the id it is nobody else's.
    pub(super) started: u64,
    /// Ended, and not yet waited for.
    pub(super) is_zombie: bool,
    pub(super) user: Duration,
    pub(super) system: Duration,
    /// Of its children that ended and that it waited for, and of theirs.
    pub(super) ended_user: Duration,
    /// The same in the kernel.
    pub(super) ended_system: Duration,
}

/// The process `root` and all that belong to it, it included, while they are listed.
pub(super) fn members(root: u32) -> Vec<Member> {
    let Ok(root) = i32::try_from(root) else { return Vec::new() };
    let mut others = all();
    let mut ids = HashSet::from([root]);
    let mut found = Vec::new();
    loop {
        let belongs = |member: &Member| {
            ids.contains(&member.id) || ids.contains(&member.parent) || member.group == root
        };
        let (near, far): (Vec<_>, Vec<_>) = others.into_iter().partition(belongs);
        if near.is_empty() {
            return found;
        }
        ids.extend(near.iter().map(|member| member.id));
        found.extend(near);
        others = far;
    }
}

/// Whether this very process still runs.
#[cfg(test)]
pub(super) fn is_alive(member: &Member) -> bool {
    Member::read(member.id).is_some_and(|now| now.started == member.started && !now.is_zombie)
}

fn all() -> Vec<Member> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter_map(Member::read).collect()
}

impl Member {
    fn read(id: i32) -> Option<Self> {
        Self::parse(id, &fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
    }

    /// Reads `stat`; proc(5) counts its fields from 1.
    fn parse(id: i32, stat: &str) -> Option<Self> {
        // The name in parentheses may hold anything; what follows begins with field 3, the state.
        let (_, after_name) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let text = |field: usize| fields.get(field - 3).copied();
        let time = |field| Some(TICK * text(field)?.parse::<u32>().ok()?);
        Some(Self {
            id,
            parent: text(4)?.parse().ok()?,
            group: text(5)?.parse().ok()?,
            started: text(22)?.parse().ok()?,
            is_zombie: matches!(text(3)?, "Z" | "X"),
            user: time(14)?,
            system: time(15)?,
            ended_user: time(16)?,
            ended_system: time(17)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_parentheses_and_blanks() {
        let line = "7 (a) S 1 (b) R 3 4 5 0 -1 4194304 1 2 3 4 250 31 7 8 20 0 1 0 9000 1 2";
        let member = Member::parse(7, line).expect("it is read");
        assert_eq!((member.parent, member.group, member.started), (3, 4, 9_000));
        assert_eq!((member.user, member.system), (TICK * 250, TICK * 31));
        assert_eq!((member.ended_user, member.ended_system), (TICK * 7, TICK * 8));
        assert!(!member.is_zombie);
    }

    #[test]
    fn what_is_no_stat_is_nobody() {
        for text in ["", "7 (sh", "7 (sh) S", "7 (sh) S 1 x 3 4 5"] {
            assert_eq!(Member::parse(7, text), None, "{text}");
        }
    }

    #[test]
    fn we_are_among_our_own_members() {
        let ours = members(std::process::id());
        assert!(ours.iter().any(|member| u32::try_from(member.id) == Ok(std::process::id())));
    }
}
