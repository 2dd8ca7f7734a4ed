//! One line per request, written by a thread of its own.
//!
//! ```text
//!   request ──► line ──► queue, bounded in lines and bytes ──► one thread ──► file or standard output
//!                         full: the line is dropped and counted
//! ```
//!
//! A slow disk or a reader that stops reading must not slow traffic down, so a request never waits for
//! its line to be written. What was lost is counted, and told in the process log.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::{AccessRecord, Format};
use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};

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
    lines: Sender<Vec<u8>>,
    orders: Sender<Order>,
    backlog: Arc<Backlog>,
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

    /// Queues one line. Never waits: when the queue is full, the line is dropped and counted.
    pub fn write(&self, record: &AccessRecord<'_>) {
        let line = record.line(self.format);
        let bytes = line.len();
        let queued = self.backlog.bytes.fetch_add(bytes, Relaxed);
        if queued >= QUEUE_BYTES_MAX || self.lines.try_send(line).is_err() {
            self.backlog.bytes.fetch_sub(bytes, Relaxed);
            self.backlog.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Opens the file again, after it was rotated. When that fails, the old one stays in use and the
    /// process log says so.
    pub fn reopen(&self) {
        let _ = self.orders.send(Order::Reopen);
    }

    /// Waits until what was queued so far is written, but no longer than two seconds.
    pub fn flush(&self) {
        let (done, is_done) = bounded(1);
        if self.orders.send(Order::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(FLUSH_PATIENCE);
        }
    }

    /// Lines that were lost: the queue was full, or the target could not be written to.
    pub fn dropped(&self) -> u64 {
        self.backlog.dropped.load(Relaxed)
    }

    fn start(
        sink: Sink,
        format: Format,
        reopen: impl Fn() -> io::Result<Sink> + Send + 'static,
    ) -> io::Result<Self> {
        let (lines, queue) = bounded(QUEUE_LINES_MAX);
        let (orders, inbox) = unbounded();
        let backlog = Arc::new(Backlog::default());
        let writer = Writer {
            queue,
            inbox,
            backlog: Arc::clone(&backlog),
            sink: BufWriter::with_capacity(BUFFER_BYTES, sink),
            reopen,
            unflushed: 0,
            told: None,
        };
        thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run())?;
        Ok(Self { format, lines, orders, backlog })
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}

/// What both ends of the queue know.
#[derive(Debug, Default)]
struct Backlog {
    /// Bytes of the lines in the queue.
    bytes: AtomicUsize,
    /// Lines lost since the start.
    dropped: AtomicU64,
}

#[derive(Debug)]
enum Order {
    Reopen,
    /// Answer when all lines that are queued now are written.
    Flush(Sender<()>),
}

type Sink = Box<dyn Write + Send>;

/// The writing end of the queue.
struct Writer<R> {
    queue: Receiver<Vec<u8>>,
    inbox: Receiver<Order>,
    backlog: Arc<Backlog>,
    sink: BufWriter<Sink>,
    reopen: R,
    /// Lines taken from the queue that may still stand in the buffer.
    unflushed: u64,
    /// When losses were last told, and how many there were.
    told: Option<(Instant, u64)>,
}

impl<R: Fn() -> io::Result<Sink>> Writer<R> {
    /// Until the log is dropped.
    fn run(mut self) {
        loop {
            select! {
                recv(self.queue) -> line => match line {
                    Ok(line) => self.write_queued(&line),
                    Err(_) => break,
                },
                recv(self.inbox) -> order => match order {
                    Ok(Order::Reopen) => self.reopen(),
                    Ok(Order::Flush(done)) => {
                        self.write_queued(&[]);
                        let _ = done.send(());
                    }
                    Err(_) => break,
                },
            }
            self.tell_losses();
        }
        self.write_queued(&[]);
    }

    /// Writes this line and what is queued behind it; so under load many lines cost one system call,
    /// and without load no line waits.
    fn write_queued(&mut self, first: &[u8]) {
        self.write(first);
        // As many as are queued now: who never stops sending must not keep orders waiting.
        for _ in 0..self.queue.len() {
            let Ok(line) = self.queue.try_recv() else { break };
            self.write(&line);
        }
        self.flush();
    }

    fn write(&mut self, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        self.backlog.bytes.fetch_sub(line.len(), Relaxed);
        self.unflushed += 1;
        if self.sink.write_all(line).is_err() {
            self.give_up_buffer();
        }
    }

    fn flush(&mut self) {
        match self.sink.flush() {
            Ok(()) => self.unflushed = 0,
            Err(_) => self.give_up_buffer(),
        }
    }

    /// The target takes nothing: a buffer kept for better times would only be tried again, and half of
    /// it twice. Lines that were written before the failure may count as lost too.
    fn give_up_buffer(&mut self) {
        self.backlog.dropped.fetch_add(std::mem::take(&mut self.unflushed), Relaxed);
        let empty: Sink = Box::new(io::sink());
        let (sink, _) = std::mem::replace(&mut self.sink, BufWriter::new(empty)).into_parts();
        self.sink = BufWriter::with_capacity(BUFFER_BYTES, sink);
        // The target may have taken half a line: the next one begins on its own. Memory takes this one.
        let _ = self.sink.write_all(b"\n");
    }

    fn reopen(&mut self) {
        self.flush();
        match (self.reopen)() {
            Ok(sink) => self.sink = BufWriter::with_capacity(BUFFER_BYTES, sink),
            Err(error) => tracing::error!(%error, "access log not reopened, the old file stays in use"),
        }
    }

    /// Once in [`TELL_INTERVAL`] at most, or a full disk would fill the other log as well.
    fn tell_losses(&mut self) {
        let dropped = self.backlog.dropped.load(Relaxed);
        let before = self.told.map_or(0, |(_, dropped)| dropped);
        let is_due = self.told.is_none_or(|(when, _)| when.elapsed() >= TELL_INTERVAL);
        if dropped > before && is_due {
            tracing::warn!(lines = dropped - before, "access log lines lost");
            self.told = Some((Instant::now(), dropped));
        }
    }
}

fn open(target: &Target) -> io::Result<Sink> {
    match target {
        Target::Stdout => Ok(Box::new(io::stdout())),
        Target::File(path) => Ok(Box::new(append_to(path)?)),
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    OpenOptions::new().append(true).create(true).open(path).map_err(named)
}

/// A fifth of a second of traffic at 40 000 requests per second, which is one core's worth.
const QUEUE_LINES_MAX: usize = 8_192;

/// Four times what [`QUEUE_LINES_MAX`] usual lines take. Hostile ones are up to a request head long
/// (64 KiB), and 8 192 of those would be half a gigabyte.
const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What one system call writes at most: about a hundred and thirty lines.
const BUFFER_BYTES: usize = 64 * 1024;

/// Disks answer sooner; a pipe that nobody reads never does, and must not keep the process alive.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

const TELL_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::sync::Mutex;

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

        let lines = QUEUE_LINES_MAX + 1_000;
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
        assert_eq!(log.backlog.bytes.load(Relaxed), 0);
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
        let queued = log.backlog.bytes.load(Relaxed);
        assert!(queued <= QUEUE_BYTES_MAX + path.len() + 1_024, "{queued} bytes are queued");
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
