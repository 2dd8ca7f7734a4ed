//! One line per request, written by a thread of its own.
//!
//! ```text
//!   request ──► line ──► queue, bounded in bytes ──► one thread ──► file or standard output
//!                         full: the line is dropped and counted
//! ```
//!
//! A slow disk or a reader that stops reading must not slow traffic down, so a request never waits for
//! its line to be written. What was lost is counted, and told in the process log.
//!
//! Waking a thread and calling the system cost more than a line does. So the thread wakes at the first line,
//! lets others come for a moment (`GATHERING`), and writes all of them at once.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use super::{AccessRecord, Format};

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Appended to this file.
    File(PathBuf),
}

/// The access log. Dropping it writes what is queued.
#[derive(Debug)]
pub struct AccessLog {
    format: Format,
    queue: Arc<Queue>,
}

impl AccessLog {
    /// Opens the target and starts the thread that writes to it.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened for appending, or no thread can be started.
    pub fn open(target: Target, format: Format) -> io::Result<Self> {
        let sink = open(&target)?;
        Self::start(sink, format, move || open(&target))
    }

    /// Queues one line. Never waits for the target: when the queue is full, the line is dropped and counted.
    pub fn write(&self, record: &AccessRecord<'_>) {
        LINE.with_borrow_mut(|line| {
            line.clear();
            record.append_to(line, self.format);
            self.queue.push(line);
            line.shrink_to(LINE_BYTES_KEPT);
        });
    }

    /// Opens the file again, after it was rotated. When that fails, the old one stays in use and the
    /// process log says so.
    pub fn reopen(&self) {
        self.queue.order(Order::Reopen);
    }

    /// Waits until what was queued so far is written, but no longer than two seconds.
    pub fn flush(&self) {
        let (done, is_done) = bounded(1);
        self.queue.order(Order::Flush(done));
        let _ = is_done.recv_timeout(FLUSH_PATIENCE);
    }

    /// Lines that were lost: the queue was full, or the target could not be written to.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped.load(Relaxed)
    }

    fn start(
        sink: Sink,
        format: Format,
        reopen: impl Fn() -> io::Result<Sink> + Send + 'static,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let writer =
            Writer { queue: queue.clone(), sink, reopen, is_within_a_line: false, told: None, refused: None };
        thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run())?;
        Ok(Self { format, queue })
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
        self.queue.order(Order::End);
    }
}

thread_local! {
    /// Where a line is put together before it is queued.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lines on their way to the thread that writes them.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// There is something to do for the thread.
    is_needed: Condvar,
    /// Lines lost since the start.
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Whole lines, each with its end.
    lines: Vec<u8>,
    orders: Vec<Order>,
}

#[derive(Debug)]
enum Order {
    Reopen,
    /// Answer when all lines that are queued now are written.
    Flush(Sender<()>),
    End,
}

impl Queue {
    /// The lock is held for as long as copying a line takes.
    fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        let before = waiting.lines.len();
        if before + line.len() > QUEUE_BYTES_MAX {
            drop(waiting);
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        waiting.lines.extend_from_slice(line);
        let after = waiting.lines.len();
        drop(waiting);
        if before == 0 || (before < MUCH_BYTES && after >= MUCH_BYTES) {
            self.is_needed.notify_one();
        }
    }

    fn order(&self, order: Order) {
        self.lock().orders.push(order);
        self.is_needed.notify_one();
    }

    /// Waits until there is something to do; swaps the lines for an empty buffer.
    fn take(&self, lines: &mut Vec<u8>) -> Vec<Order> {
        let has_nothing = |waiting: &mut Waiting| waiting.lines.is_empty() && waiting.orders.is_empty();
        let may_gather =
            |waiting: &mut Waiting| waiting.orders.is_empty() && waiting.lines.len() < MUCH_BYTES;
        let waiting = self.is_needed.wait_while(self.lock(), has_nothing);
        let waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        let gathered = self.is_needed.wait_timeout_while(waiting, GATHERING, may_gather);
        let (mut waiting, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut waiting.lines, lines);
        std::mem::take(&mut waiting.orders)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Sink = Box<dyn Write + Send>;

/// The writing end of the queue.
struct Writer<R> {
    queue: Arc<Queue>,
    sink: Sink,
    reopen: R,
    /// The target took half a line, and then nothing more.
    is_within_a_line: bool,
    /// When losses were last told, and how many there were.
    told: Option<(Instant, u64)>,
    /// Why the target last took nothing, until that is told.
    refused: Option<io::Error>,
}

impl<R: Fn() -> io::Result<Sink>> Writer<R> {
    /// Until the log is dropped.
    fn run(mut self) {
        let mut lines = Vec::new();
        loop {
            let orders = self.queue.take(&mut lines);
            self.write(&lines);
            lines.clear();
            // Who was busy once need not keep the memory for ever.
            lines.shrink_to(MUCH_BYTES);
            for order in orders {
                match order {
                    Order::Reopen => self.reopen(),
                    // Who asked may have lost patience.
                    Order::Flush(done) => drop(done.send(())),
                    Order::End => return,
                }
            }
            self.tell_losses();
        }
    }

    /// Writes whole lines. What the target does not take is lost: kept for better times, it would only be tried
    /// again and again, while new lines pile up.
    fn write(&mut self, lines: &[u8]) {
        if self.is_within_a_line && !lines.is_empty() && self.write_all(b"\n").is_ok() {
            self.is_within_a_line = false;
        }
        if let Err(rest) = self.write_all(lines) {
            let lost = memchr::memchr_iter(b'\n', rest).count();
            self.queue.dropped.fetch_add(lost as u64, Relaxed);
            // The next line begins on its own.
            let taken = lines.len() - rest.len();
            if let Some(last) = taken.checked_sub(1) {
                self.is_within_a_line = lines.get(last).is_some_and(|&byte| byte != b'\n');
            }
        }
    }

    /// # Errors
    ///
    /// What was not written.
    fn write_all<'a>(&mut self, mut bytes: &'a [u8]) -> Result<(), &'a [u8]> {
        while !bytes.is_empty() {
            match self.sink.write(bytes) {
                Ok(0) => {
                    self.refused = Some(ErrorKind::WriteZero.into());
                    return Err(bytes);
                }
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Standard output may be shared with somebody who made it so.
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_PAUSE),
                Err(error) => {
                    self.refused = Some(error);
                    return Err(bytes);
                }
            }
        }
        Ok(())
    }

    fn reopen(&mut self) {
        match (self.reopen)() {
            Ok(sink) => {
                self.sink = sink;
                self.is_within_a_line = false;
            }
            Err(error) => tracing::error!(%error, "access log not reopened, the old file stays in use"),
        }
    }

    /// Once in [`TELL_INTERVAL`] at most, or a full disk would fill the other log as well.
    fn tell_losses(&mut self) {
        let dropped = self.queue.dropped.load(Relaxed);
        let before = self.told.map_or(0, |(_, dropped)| dropped);
        let is_due = self.told.is_none_or(|(when, _)| when.elapsed() >= TELL_INTERVAL);
        if dropped > before && is_due {
            let reason = self.refused.take().map_or_else(|| TOO_SLOW.to_owned(), |error| error.to_string());
            tracing::warn!(lines = dropped - before, %reason, "access log lines lost");
            self.told = Some((Instant::now(), dropped));
        }
    }
}

fn open(target: &Target) -> io::Result<Sink> {
    match target {
        // The standard library's own would look for the last line end in all that is written.
        Target::Stdout => Ok(Box::new(File::from(io::stdout().as_fd().try_clone_to_owned()?))),
        Target::File(path) => Ok(Box::new(append_to(path)?)),
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    // Opened for writing alone, a pipe keeps us waiting until somebody reads it, and neither a start nor an end
    // may wait for that. Opened for both it does not (fifo(7)); then its reader may come and go, too.
    let is_pipe = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    OpenOptions::new().read(is_pipe).append(true).create(true).open(path).map_err(named)
}

/// Twenty thousand usual lines: half a second of traffic at 40 000 requests per second, which is one core's worth.
/// Hostile ones are up to a request head long (64 KiB). While a target is stuck, as much again is on its way to it.
const QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// From here on nobody waits for further lines: it is worth a call of the system, and the queue has room for more.
const MUCH_BYTES: usize = 1024 * 1024;

/// A line stays within what people call at once; under load thousands share a system call.
const GATHERING: Duration = Duration::from_millis(50);

/// Lines that are longer than this are rare, and their memory is given back.
const LINE_BYTES_KEPT: usize = 4 * 1024;

/// Disks answer sooner; a pipe that nobody reads never does, and must not keep the process alive.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// Before another look whether a target that does not wait has room.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Why lines are lost when the target takes them, but not in time.
const TOO_SLOW: &str = "its disk, or its reader, does not keep up";

const TELL_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crossbeam_channel::Receiver;

    use super::*;
    use crate::observe::access_record::tests::{record, refused};

    #[test]
    fn dropping_the_log_writes_what_is_queued() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = AccessLog::open(Target::File(path.clone()), Format::Json).unwrap();
        for _ in 0..1_000 {
            log.write(&record());
        }
        drop(log);
        let text = fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 1_000);
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }

    #[test]
    fn a_line_is_written_without_anybody_asking() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = AccessLog::open(Target::File(path.clone()), Format::Text).unwrap();
        log.write(&record());
        let deadline = Instant::now() + Duration::from_secs(10);
        while fs::read(&path).unwrap().is_empty() {
            assert!(Instant::now() < deadline, "nothing was written");
            thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn an_existing_file_is_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        fs::write(&path, "before\n").unwrap();
        AccessLog::open(Target::File(path.clone()), Format::Text).unwrap().write(&record());
        let text = fs::read_to_string(path).unwrap();
        assert!(text.starts_with("before\n127.0.0.1 "), "{text}");
    }

    #[test]
    fn a_rotated_file_is_left_alone_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let (path, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let log = AccessLog::open(Target::File(path.clone()), Format::Text).unwrap();
        log.write(&record());
        log.flush();
        fs::rename(&path, &rotated).unwrap();
        log.reopen();
        log.flush();
        log.write(&refused());
        log.flush();
        assert_eq!(fs::read_to_string(&rotated).unwrap().lines().count(), 1);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_reopened_stays_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("logs");
        fs::create_dir(&inner).unwrap();
        let log = AccessLog::open(Target::File(inner.join("access.log")), Format::Text).unwrap();
        let moved = folder.path().join("moved");
        fs::rename(&inner, &moved).unwrap();
        log.reopen();
        log.flush();
        log.write(&record());
        log.flush();
        assert_eq!(fs::read_to_string(moved.join("access.log")).unwrap().lines().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error =
            AccessLog::open(Target::File("/nonexistent/access.log".into()), Format::Text).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("/nonexistent/access.log"), "{error}");
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_opened_and_opened_again_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let (opened, is_opened) = bounded(1);
        let target = Target::File(path.clone());
        thread::spawn(move || opened.send(AccessLog::open(target, Format::Text)));
        let log = is_opened.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
        log.reopen();
        let (done, is_done) = bounded(1);
        log.queue.order(Order::Flush(done));
        is_done.recv_timeout(Duration::from_secs(10)).unwrap();
    }

    fn lines_in(written: &Mutex<Vec<u8>>) -> usize {
        String::from_utf8_lossy(&written.lock().unwrap()).lines().count()
    }

    /// Takes nothing until its gate opens, like a pipe that nobody reads.
    struct Stuck {
        gate: Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.gate.recv();
            self.written.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_target_costs_lines_not_time_and_every_loss_is_counted() {
        let (open_gate, gate) = bounded::<()>(0);
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Box::new(Stuck { gate, written: Arc::clone(&written) });
        let log = AccessLog::start(sink, Format::Text, || Err(io::Error::other("not asked for"))).unwrap();

        let lines = QUEUE_BYTES_MAX / record().line(Format::Text).len() * 2;
        let started = Instant::now();
        for _ in 0..lines {
            log.write(&record());
        }
        assert!(started.elapsed() < Duration::from_secs(5), "writing waited for the target");
        assert!(log.dropped() > 0);

        drop(open_gate);
        log.flush();
        let kept = lines_in(&written);
        assert_eq!(kept as u64 + log.dropped(), lines as u64);
        assert_eq!(log.queue.lock().lines.len(), 0);
    }

    #[test]
    fn long_lines_fill_the_queue_by_their_bytes() {
        let (open_gate, gate) = bounded::<()>(0);
        let sink = Box::new(Stuck { gate, written: Arc::default() });
        let log = AccessLog::start(sink, Format::Text, || Err(io::Error::other("not asked for"))).unwrap();
        let path = "/x".repeat(32 * 1024);
        for _ in 0..1_000 {
            log.write(&AccessRecord { path: &path, ..record() });
        }
        let queued = log.queue.lock().lines.len();
        assert!(queued <= QUEUE_BYTES_MAX, "{queued} bytes are queued");
        assert!(log.dropped() > 0);
        drop(open_gate);
    }

    /// A disk without room.
    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Takes ten bytes, then nothing for one write, then everything.
    struct Filling {
        writes: usize,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Filling {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes += 1;
            match self.writes {
                1 => self.written.lock().unwrap().write(bytes.get(..10).unwrap_or(bytes)),
                2 => Err(io::ErrorKind::StorageFull.into()),
                _ => self.written.lock().unwrap().write(bytes),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn half_a_line_does_not_spoil_the_next_one() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Box::new(Filling { writes: 0, written: Arc::clone(&written) });
        let log = AccessLog::start(sink, Format::Json, || Err(io::Error::other("not asked for"))).unwrap();
        log.write(&record());
        log.flush();
        log.write(&record());
        log.flush();
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert_eq!(
            text,
            format!("{{\"time\":\"2\n{}", String::from_utf8(record().line(Format::Json)).unwrap())
        );
        assert_eq!(log.dropped(), 1);
    }

    #[test]
    fn lines_that_a_full_disk_refuses_are_counted_and_writing_goes_on_after_reopening() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let (_, open_gate) = bounded::<()>(0);
        let next = Arc::clone(&written);
        let reopen = move || {
            let sink: Sink = Box::new(Stuck { gate: open_gate.clone(), written: Arc::clone(&next) });
            Ok(sink)
        };
        let log = AccessLog::start(Box::new(Full), Format::Text, reopen).unwrap();
        for _ in 0..3 {
            log.write(&record());
        }
        log.flush();
        assert_eq!(log.dropped(), 3);

        log.reopen();
        log.flush();
        log.write(&record());
        log.flush();
        assert_eq!((lines_in(&written), log.dropped()), (1, 3));
    }
}
