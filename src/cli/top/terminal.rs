//! The terminal, from when we take it to when we give it back: on every way out, whoever takes it first.
//!
//! ```text
//!   quit · failure ──► Drop ─────┐
//!   panic ──► hook ──────────────┼──► give_back: once, whoever comes first
//!   TERM · HUP · INT · QUIT ─────┘        └── and then the process ends as the signal says
//! ```
//!
//! Keys and signals have threads of their own, so that neither a server that hangs nor a terminal that takes
//! nothing keeps anybody waiting.

use std::io::{self, BufWriter, ErrorKind, IsTerminal, Read, Stdout, stdin, stdout};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, MutexGuard, Once, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{
    self, DisableBracketedPaste, EnableBracketedPaste, Event, KeyCode, KeyEvent, KeyModifiers,
};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{Frame, Terminal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::iterator::Signals;
use signal_hook::low_level::{emulate_default_handler, pipe};

/// Whether the terminal is ours. Taken back once only: a second time would move the cursor over what was said.
static IS_OURS: AtomicBool = AtomicBool::new(false);

/// Held by whoever writes to the terminal.
static WRITING: Mutex<()> = Mutex::new(());

/// How long a signal waits for a terminal that takes nothing (stopped by Ctrl-S, say), before the process ends
/// all the same.
const FAREWELL: Duration = Duration::from_secs(1);

/// How often is looked whether the terminal is still there.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// More than a full screen, so that it goes out in one piece.
const SCREEN_BYTES: usize = 64 * 1024;

/// What comes from outside.
pub(super) enum Input {
    Event(Event),
    /// We were stopped, and go on.
    Continued,
    /// Nobody is there any more.
    Gone,
}

/// A terminal that is ours until this is dropped.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn take() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(give_back_at_panic);
        set_up()?;
        Ok(Self { terminal: new_terminal()? })
    }

    /// Draws, unless somebody has given the terminal back.
    pub(super) fn draw(&mut self, render: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        let _writing = lock();
        if !IS_OURS.load(Relaxed) {
            return Err(io::Error::new(ErrorKind::BrokenPipe, "it was given back"));
        }
        self.terminal.draw(render).map(drop)
    }

    /// Takes it once more, whatever was done to it meanwhile.
    pub(super) fn take_again(&mut self) -> io::Result<()> {
        give_back();
        set_up()?;
        // A new one: the old one believes that its last frame is still there.
        self.terminal = new_terminal()?;
        Ok(())
    }

    /// Stops, as Ctrl-Z does elsewhere; comes back when we go on.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        give_back();
        emulate_default_handler(SIGTSTP)?;
        self.take_again()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Whether somebody sits here, at a terminal that can draw.
pub(super) fn is_interactive() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    stdin().is_terminal() && stdout().is_terminal() && !is_dumb
}

fn new_terminal() -> io::Result<Terminal<CrosstermBackend<BufWriter<Stdout>>>> {
    Terminal::new(CrosstermBackend::new(BufWriter::with_capacity(SCREEN_BYTES, stdout())))
}

fn set_up() -> io::Result<()> {
    let _writing = lock();
    IS_OURS.store(true, Relaxed);
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen, EnableBracketedPaste)
}

/// Leaves the terminal as it was. More than once does no harm.
pub(super) fn give_back() {
    let _writing = lock();
    restore();
}

fn restore() {
    if IS_OURS.swap(false, Relaxed) {
        // One that is gone needs nothing.
        let _ = disable_raw_mode();
        let _ = execute!(stdout(), DisableBracketedPaste, LeaveAlternateScreen, Show);
    }
}

fn lock() -> MutexGuard<'static, ()> {
    WRITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is said of a panic has to be seen.
fn give_back_at_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore_in_any_case();
        before(panic);
    }));
}

/// Whoever panics while drawing holds the lock, and waits for nobody.
fn restore_in_any_case() {
    let started = Instant::now();
    while matches!(WRITING.try_lock(), Err(TryLockError::WouldBlock)) && started.elapsed() < FAREWELL / 10 {
        thread::sleep(FAREWELL / 100);
    }
    restore();
}

/// Hears signals from now on. Those that end a process end this one, after the terminal is given back.
pub(super) fn hear_signals<T: From<Input> + Send + 'static>(inputs: Sender<T>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGCONT])?;
    thread::spawn(move || {
        for signal in signals.forever() {
            if signal == SIGCONT {
                // Who hears it may be gone: then we end anyway.
                let _ = inputs.send(Input::Continued.into());
            } else {
                end_by(signal);
            }
        }
    });
    Ok(())
}

fn end_by(signal: i32) {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        give_back();
        let _ = done.send(());
    });
    let _ = is_done.recv_timeout(FAREWELL);
    if emulate_default_handler(signal).is_err() {
        std::process::exit(128 + signal);
    }
}

/// Reads keys, pastes and changes of size from now on.
pub(super) fn read_keys<T: From<Input> + Send + 'static>(inputs: Sender<T>) {
    thread::spawn(move || {
        let Ok(mut resizes) = resizes() else { return drop(inputs.send(Input::Gone.into())) };
        while let Ok(events) = next_events(&mut resizes) {
            if events.into_iter().any(|event| inputs.send(Input::Event(event).into()).is_err()) {
                return;
            }
        }
        let _ = inputs.send(Input::Gone.into());
    });
}

/// Has something to read after each change of size. crossterm is told of it first, since whoever asked first is.
fn resizes() -> io::Result<UnixStream> {
    event::poll(Duration::ZERO)?;
    let (resizes, signal) = UnixStream::pair()?;
    resizes.set_nonblocking(true)?;
    signal.set_nonblocking(true)?;
    pipe::register(SIGWINCH, signal)?;
    Ok(resizes)
}

/// Whatever has come. crossterm would spin for ever on a terminal that is gone, so it is asked only when there
/// is something to read, or a new size. Of that it has to hear at once: if it finds a new size and a key together,
/// it tells of the size, and leaves the key unread until another is pressed.
fn next_events(resizes: &mut UnixStream) -> io::Result<Vec<Event>> {
    let stdin = stdin();
    let wait = Timespec { tv_sec: 0, tv_nsec: LOOK_EVERY.subsec_nanos().into() };
    let mut ready = [
        PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(resizes.as_fd(), PollFlags::IN),
    ];
    match poll(&mut ready, Some(&wait)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let [terminal, _] = ready.map(|ready| ready.revents());
    if terminal.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    // Read out for the next time; what it says is nothing.
    let _ = resizes.read(&mut [0; 64]);
    let mut events = Vec::new();
    while event::poll(Duration::ZERO)? {
        events.push(event::read()?);
    }
    if terminal.contains(PollFlags::IN) {
        events.extend(missed_keys()?);
    }
    Ok(events)
}

/// Keys that crossterm has left unread, for a new size came together with them: it asks the system to be told once of
/// what there is to read, and forgets that over the size.
fn missed_keys() -> io::Result<Vec<Event>> {
    let stdin = stdin();
    let mut ready = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
    if poll(&mut ready, Some(&Timespec::default()))? == 0 {
        return Ok(Vec::new());
    }
    let mut bytes = [0; 64];
    let count = rustix::io::read(stdin.as_fd(), &mut bytes)?;
    let keys = keys_in(bytes.get(..count).unwrap_or_default());
    Ok(keys.into_iter().map(Event::Key).collect())
}

/// Keys as terminals write them, beside those that are a byte each. Of two that begin alike the longer one is first.
const SEQUENCES: [(&[u8], KeyCode); 16] = [
    (b"\x1b[A", KeyCode::Up),
    (b"\x1bOA", KeyCode::Up),
    (b"\x1b[B", KeyCode::Down),
    (b"\x1bOB", KeyCode::Down),
    (b"\x1b[5~", KeyCode::PageUp),
    (b"\x1b[6~", KeyCode::PageDown),
    (b"\x1b[H", KeyCode::Home),
    (b"\x1bOH", KeyCode::Home),
    (b"\x1b[1~", KeyCode::Home),
    (b"\x1b[F", KeyCode::End),
    (b"\x1bOF", KeyCode::End),
    (b"\x1b[4~", KeyCode::End),
    (b"\x1bOP", KeyCode::F(1)),
    (b"\r", KeyCode::Enter),
    (b"\x7f", KeyCode::Backspace),
    (b" ", KeyCode::Char(' ')),
];

/// The keys that we know, up to the first that we do not: what follows may be a part of it.
fn keys_in(mut bytes: &[u8]) -> Vec<KeyEvent> {
    let mut keys = Vec::new();
    while let Some((&first, after_first)) = bytes.split_first() {
        let known = SEQUENCES.iter().find_map(|(sequence, key)| Some((*key, bytes.strip_prefix(*sequence)?)));
        let (key, rest) = match (known, first) {
            (Some((key, rest)), _) => (key.into(), rest),
            // Alone it is a key, and else the beginning of one.
            (None, b'\x1b') if after_first.is_empty() => (KeyCode::Esc.into(), after_first),
            (None, 0x01..=0x1a) => {
                let letter = KeyCode::Char(char::from(first - 1 + b'a'));
                (KeyEvent::new(letter, KeyModifiers::CONTROL), after_first)
            }
            (None, _) if first.is_ascii_graphic() => (KeyCode::Char(char::from(first)).into(), after_first),
            (None, _) => break,
        };
        keys.push(key);
        bytes = rest;
    }
    keys
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    use super::*;

    #[test]
    fn keys_that_came_with_a_new_size_are_told_apart() {
        let keys = |bytes: &str| keys_in(bytes.as_bytes());
        let plain = |codes: &[KeyCode]| codes.iter().map(|&code| code.into()).collect::<Vec<KeyEvent>>();
        for (sequence, key) in SEQUENCES {
            assert_eq!(keys_in(sequence), plain(&[key]));
        }
        let [down, up] = [KeyCode::Down, KeyCode::Up];
        assert_eq!(keys("gG"), plain(&[KeyCode::Char('g'), KeyCode::Char('G')]));
        assert_eq!(keys("\x1b[B\x1bOB\x1b[Aq"), plain(&[down, down, up, KeyCode::Char('q')]));
        assert_eq!(keys("/a\r"), plain(&[KeyCode::Char('/'), KeyCode::Char('a'), KeyCode::Enter]));
        assert_eq!(keys("\x1b"), plain(&[KeyCode::Esc]));
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(keys("j\x03"), [plain(&[KeyCode::Char('j')]), vec![interrupt]].concat());
    }

    /// The letters in it would drain somebody.
    #[test]
    fn what_is_no_key_that_we_know_is_left_out_with_what_follows() {
        for bytes in ["\x1b[1;5d", "\x1b[200~dy\x1b[201~", "\u{e4}dy", "\x1b[<0;1;1Mdy", "\0dy", "\x1bdy"] {
            assert_eq!(keys_in(bytes.as_bytes()), [], "{bytes:?}");
        }
    }

    #[test]
    #[ignore = "takes the terminal: the test below runs it on one"]
    fn panics_while_drawing() {
        let mut screen = Screen::take().unwrap();
        let _ = screen.draw(|_| panic!("in the middle of a line"));
    }

    /// On a terminal of tmux; a test of its own process, since it is to panic.
    #[test]
    fn a_panic_gives_the_terminal_back_and_is_read() {
        let name = format!("evener-panic-{}", std::process::id());
        let tmux = |words: &[&str]| -> Output {
            Command::new("tmux")
                .args(["-L", &name, "-f", "/dev/null"])
                .args(words)
                .env_remove("TMUX")
                .output()
                .unwrap()
        };
        let (_, room) = module_path!().split_once("::").unwrap();
        let this = std::env::current_exe().unwrap();
        let test = format!("'{}' --ignored --exact {room}::panics_while_drawing --nocapture", this.display());
        let command = format!("RUST_BACKTRACE=0 {test}; echo after $?; stty -a; exec sleep 600");
        assert!(tmux(&["new-session", "-d", "-x", "100", "-y", "50", &command]).status.success());
        let started = Instant::now();
        let seen = loop {
            let seen = String::from_utf8_lossy(&tmux(&["capture-pane", "-p"]).stdout).into_owned();
            if seen.contains(" icanon") || started.elapsed() > Duration::from_secs(60) {
                break seen;
            }
            thread::sleep(Duration::from_millis(50));
        };
        let alternate = tmux(&["display-message", "-p", "#{alternate_on}#{cursor_flag}"]).stdout;
        tmux(&["kill-server"]);
        for words in ["in the middle of a line", "after 101", " icanon"] {
            assert!(seen.contains(words), "{words}: {seen}");
        }
        assert_eq!(String::from_utf8_lossy(&alternate).trim(), "01");
    }
}
