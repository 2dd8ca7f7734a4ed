//! `evener top`: the figures of the dashboard in a terminal, and two keys that act.
//!
//! ```text
//!   sample.rs ──► picture.rs ──► board.rs ──► draw.rs      once.rs: the same as one table
//!   (asked)       (rates)        (keys)       (pure)
//!       ▲                           │
//!   asker.rs ◄── drain, ready ──────┘          terminal.rs: taken, and given back on every way out
//! ```

mod asker;
mod board;
mod draw;
mod once;
mod picture;
mod sample;
mod terminal;
#[cfg(test)]
mod testing;
mod verdict;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::crossterm::event::Event;

use super::client::{Admin, Client, duration};
use super::failure::Failure;
use super::output::{self, Paint};
use crate::signals;
use asker::{Asker, News};
use board::{Board, Link, Mode, Sort, Wish};
use draw::{Look, Scene, draw};
use picture::Meter;
use sample::Sample;
use terminal::{Input, Screen};

/// Figures change no faster than people read them, and each look costs the server a little.
const EVERY_MIN: Duration = Duration::from_millis(200);

/// Ages on the screen are counted in seconds.
const REDRAW_EVERY: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(super) struct Top {
    /// How often to look.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    every: Duration,
    /// What to order by; `s` changes it.
    #[arg(long, value_enum, value_name = "KEY", default_value_t)]
    sort: Sort,
    /// Reverse the order; `R` changes it.
    #[arg(long)]
    reverse: bool,
    /// Show only upstreams with these words in pool, address, status, state or health; `/` changes it.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,
    /// Look twice, `--every` apart, print one plain table, and end: for scripts.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    admin: Admin,
}

fn interval(text: &str) -> Result<Duration, String> {
    let every = duration(text)?;
    if every < EVERY_MIN {
        return Err(format!("expected {EVERY_MIN:?} at least"));
    }
    Ok(every)
}

/// Whatever happens.
enum Message {
    Input(Input),
    News(News),
}

impl From<Input> for Message {
    fn from(input: Input) -> Self {
        Self::Input(input)
    }
}

impl From<News> for Message {
    fn from(news: News) -> Self {
        Self::News(news)
    }
}

impl Top {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.admin)?;
        if client.json {
            return Err(Failure::usage(
                "`evener top` has no --json",
                "`evener pools --json` and `evener status --json` have the same figures, as the API says them",
            ));
        }
        if self.once {
            signals::end_by_hangup();
            return self.print_once(&client);
        }
        if !terminal::is_interactive() {
            return Err(Failure::usage(
                "`evener top` draws on a terminal, and this is none that it can draw on",
                "`evener top --once` prints one plain table; over ssh, `ssh -t` makes a terminal",
            ));
        }
        self.watch(client)
    }

    fn board(&self) -> Board {
        Board::new(self.sort, self.reverse, self.filter.clone())
    }

    /// Rates need two looks.
    fn print_once(&self, client: &Client) -> Result<ExitCode, Failure> {
        let started = Instant::now();
        let mut meter = Meter::default();
        meter.read(Sample::take(client, || started.elapsed())?);
        std::thread::sleep(self.every);
        let mut board = self.board();
        board.show(meter.read(Sample::take(client, || started.elapsed())?));
        output::print(&once::table(&board, Paint::for_stdout()))?;
        Ok(ExitCode::SUCCESS)
    }

    fn watch(&self, client: Client) -> Result<ExitCode, Failure> {
        let started = Instant::now();
        let mut board = self.board();
        let mut meter = Meter::default();
        // What is wrong from the start (no server, no token) is told as by every other command.
        board.show(meter.read(Sample::take(&client, || started.elapsed())?));
        let server = client.base().to_owned();
        let (messages, inbox) = mpsc::channel::<Message>();
        terminal::hear_signals(messages.clone()).map_err(|error| lost_terminal(&error))?;
        let asker = Asker::start(Arc::new(client), started, self.every, messages.clone());
        let screen = Screen::take().map_err(|error| lost_terminal(&error))?;
        terminal::read_keys(messages);
        let scene =
            Scene { look: Look::of_environment(), server: &server, every: self.every, now: Duration::ZERO };
        let show = Show { board, meter, screen, inbox, asker, started, scene };
        show.run().map(|()| ExitCode::SUCCESS).map_err(|error| lost_terminal(&error))
    }
}

fn lost_terminal(error: &io::Error) -> Failure {
    Failure::Refused(format!(
        "error: the terminal cannot be used any more: {error}\n  = help: `evener top --once` needs none"
    ))
}

/// All that is there while somebody looks.
struct Show<'a> {
    board: Board,
    meter: Meter,
    screen: Screen,
    inbox: Receiver<Message>,
    asker: Asker<Message>,
    started: Instant,
    scene: Scene<'a>,
}

impl Show<'_> {
    /// Until somebody wants to leave, or the terminal is gone.
    fn run(mut self) -> io::Result<()> {
        loop {
            self.scene.now = self.started.elapsed();
            let (board, scene) = (&mut self.board, &self.scene);
            self.screen.draw(|frame| draw(frame, board, scene))?;
            let first = match self.inbox.recv_timeout(REDRAW_EVERY) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                // Signals have an end of the channel for ever.
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            // What has come together is drawn together.
            let more: Vec<Message> = self.inbox.try_iter().collect();
            for message in first.into_iter().chain(more) {
                if !self.hear(message)? {
                    return Ok(());
                }
            }
        }
    }

    /// Whether to go on.
    fn hear(&mut self, message: Message) -> io::Result<bool> {
        match message {
            Message::Input(Input::Event(event)) => return self.act(event),
            Message::Input(Input::Continued) => self.screen.take_again()?,
            Message::Input(Input::Gone) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Message::News(News::Sample(sample)) => self.board.show(self.meter.read(*sample)),
            Message::News(News::Lost(why)) => self.board.link = Link::Lost(why),
            Message::News(News::Done(note)) => self.board.note = Some(note),
            Message::News(News::Refused(why)) => self.board.mode = Mode::Told(why),
        }
        Ok(true)
    }

    fn act(&mut self, event: Event) -> io::Result<bool> {
        let wish = match event {
            Event::Key(key) => self.board.press(key),
            Event::Paste(text) => {
                self.board.paste(&text);
                None
            }
            _ => None,
        };
        match wish {
            Some(Wish::Quit) => return Ok(false),
            Some(Wish::Suspend) => self.screen.suspend()?,
            Some(Wish::Refresh) => {
                // Whoever asks for it may want to see a screen that something else has written on.
                self.screen.take_again()?;
                self.asker.ask_now();
            }
            Some(Wish::Do(action)) => {
                self.board.note = Some(action.under_way());
                self.asker.act(action);
            }
            None => {}
        }
        Ok(true)
    }
}

impl Look {
    fn of_environment() -> Self {
        let variable = |name| std::env::var(name).unwrap_or_default();
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().map(variable).find(|value| !value.is_empty());
        Self {
            is_coloured: variable("NO_COLOR").is_empty(),
            is_unicode: locale.is_some_and(|locale| {
                let locale = locale.to_ascii_lowercase();
                locale.contains("utf-8") || locale.contains("utf8")
            }),
        }
    }
}
