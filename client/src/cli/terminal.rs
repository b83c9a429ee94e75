//! What people see while a job runs: a line of progress on a terminal, problems as they occur, a summary.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use diptych_format::{Kind, Monitor, Problem};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::names;
use crate::progress::{Act, Progress};
use crate::size::show_size;

use super::json::{self, JsonTo};
use super::options::Common;
use super::output;

/// How often the line of progress is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(150);
/// The most of a path that the line shows.
const PATH_SHOWN: usize = 48;

/// A monitor that prints. Drop it, or call [`Terminal::finish`], before anything else is printed.
pub struct Terminal {
    shared: Arc<Shared>,
    drawer: Mutex<Option<std::thread::JoinHandle<()>>>,
    json: Option<JsonTo>,
    is_verbose: bool,
    is_quiet: bool,
    /// Whether it is told why entries are read.
    tells_why: AtomicBool,
}

struct Shared {
    bar: Option<ProgressBar>,
    is_done: AtomicBool,
    started: Instant,
    entries: AtomicU64,
    bytes: AtomicU64,
    expected_bytes: AtomicU64,
    losses: AtomicU64,
    notices: AtomicU64,
    current: Mutex<Vec<u8>>,
}

impl Terminal {
    /// Shows what `common` asks for; with `json`, events go there.
    pub fn new(common: &Common, json: Option<JsonTo>) -> Arc<Self> {
        let shows_bar = !common.quiet && json.is_none() && std::io::stderr().is_terminal();
        let shared = Arc::new(Shared {
            bar: shows_bar.then(new_bar),
            is_done: AtomicBool::new(false),
            started: Instant::now(),
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            expected_bytes: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            notices: AtomicU64::new(0),
            current: Mutex::default(),
        });
        let drawer = shared.bar.is_some().then(|| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                while !shared.is_done.load(Ordering::Relaxed) {
                    shared.draw();
                    std::thread::park_timeout(DRAW_EVERY);
                }
            })
        });
        Arc::new(Self {
            shared,
            drawer: Mutex::new(drawer),
            json,
            is_verbose: common.verbose,
            is_quiet: common.quiet,
            tells_why: AtomicBool::new(false),
        })
    }

    /// Shows problems alone: for a job whose result goes to the same terminal.
    pub fn quiet(common: &Common) -> Arc<Self> {
        Self::new(&Common { quiet: true, ..*common }, None)
    }

    /// Tells from now on why entries are read though there is a snapshot to compare with.
    pub fn tell_why(&self) {
        self.tells_why.store(true, Ordering::Relaxed);
    }

    /// Takes the line of progress away.
    pub fn finish(&self) {
        self.shared.is_done.store(true, Ordering::Relaxed);
        let drawer = self.drawer.lock().ok().and_then(|mut drawer| drawer.take());
        if let Some(drawer) = drawer {
            drawer.thread().unpark();
            // It draws and sleeps; there is nothing in it that could fail.
            let _ = drawer.join();
        }
        if let Some(bar) = &self.shared.bar {
            bar.finish_and_clear();
        }
    }

    /// Losses so far.
    pub fn losses(&self) -> u64 {
        self.shared.losses.load(Ordering::Relaxed)
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.shared.started.elapsed()
    }

    /// Where events go, if they do.
    pub fn json(&self) -> Option<&JsonTo> {
        self.json.as_ref()
    }

    /// `, 3 problems` or nothing: the end of a summary.
    pub fn problem_count(&self) -> String {
        match self.losses() {
            0 => String::new(),
            1 => "; 1 problem, named above".to_owned(),
            losses => format!("; {losses} problems, named above"),
        }
    }

    fn print(&self, line: &[u8]) {
        match &self.shared.bar {
            Some(bar) => bar.suspend(|| output::warn(line)),
            None => output::warn(line),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Monitor for Terminal {
    fn entry(&self, path: &[u8], kind: Kind) {
        self.shared.entries.fetch_add(1, Ordering::Relaxed);
        if self.shared.bar.is_some()
            && let Ok(mut current) = self.shared.current.try_lock()
        {
            current.clear();
            current.extend_from_slice(path);
        }
        if self.is_verbose {
            match &self.json {
                Some(json) => json.send(&json::entry_event(path, kind)),
                None => {
                    let shown = if path.is_empty() { b"." } else { path };
                    let mut line = names::escape(shown).into_owned();
                    line.extend_from_slice(if kind == Kind::Directory { b"/\n" } else { b"\n" });
                    self.print(&line);
                }
            }
        }
    }

    fn bytes(&self, count: u64) {
        self.shared.bytes.fetch_add(count, Ordering::Relaxed);
    }

    fn read(&self, path: &[u8], why: &'static str) {
        if !self.tells_why.load(Ordering::Relaxed) {
            return;
        }
        match &self.json {
            Some(json) => json.send(&json::read_event(path, why)),
            None => {
                let line = [why.as_bytes(), b"  ", &names::escape(path), b"\n"].concat();
                self.print(&line);
            }
        }
    }

    fn problem(&self, problem: Problem) {
        let counter = if problem.is_loss { &self.shared.losses } else { &self.shared.notices };
        counter.fetch_add(1, Ordering::Relaxed);
        match &self.json {
            Some(json) => json.send(&json::problem_event(&problem)),
            None => {
                let note = if problem.is_loss { "" } else { "; nothing is lost" };
                let line = format!(
                    "diptych: {}: {}{note}\n",
                    names::show(&problem.path),
                    names::tame(&problem.what)
                );
                self.print(line.as_bytes());
            }
        }
    }
}

impl Progress for Terminal {
    fn expect(&self, _: u64, bytes: u64) {
        self.shared.expected_bytes.store(bytes, Ordering::Relaxed);
        if let Some(bar) = &self.shared.bar {
            bar.set_length(bytes);
            bar.set_style(style("{elapsed} {bar:20} {percent:>3}%  {prefix}, {eta} left  {wide_msg}"));
        }
    }

    fn planned(&self, act: Act, path: &[u8], is_directory: bool) {
        match &self.json {
            Some(json) => json.send(&json::planned_event(act, path, is_directory)),
            None if self.is_quiet => {}
            None => {
                let print = || output::print_event(&act_line(act, path, is_directory));
                match &self.shared.bar {
                    Some(bar) => bar.suspend(print),
                    None => print(),
                }
            }
        }
    }

    fn deleted(&self, path: &[u8], is_directory: bool) {
        match &self.json {
            Some(json) if self.is_verbose => json.send(&json::deleted_event(path, is_directory)),
            None if self.is_verbose => self.print(&act_line(Act::Delete, path, is_directory)),
            _ => {}
        }
    }

    fn incomplete(&self, path: &[u8], what: &str) {
        match &self.json {
            Some(json) => json.send(&json::incomplete_event(path, what)),
            None if self.is_verbose => {
                self.print(format!("diptych: {}: {what}\n", names::show(path)).as_bytes());
            }
            None => {}
        }
    }
}

/// `create  a/b`, and a slash behind a directory.
fn act_line(act: Act, path: &[u8], is_directory: bool) -> Vec<u8> {
    let shown = if path.is_empty() { b"." } else { path };
    let end = if is_directory { "/\n" } else { "\n" };
    [format!("{:<7} ", act.word()).as_bytes(), &names::escape(shown), end.as_bytes()].concat()
}

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(style("{elapsed} {spinner} {prefix}  {wide_msg}"));
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

impl Shared {
    fn draw(&self) {
        let Some(bar) = &self.bar else { return };
        let bytes = self.bytes.load(Ordering::Relaxed);
        // Until there is something to tell, the terminal may be asked for a password.
        if bytes == 0 && self.entries.load(Ordering::Relaxed) == 0 {
            return;
        }
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        let rate = show_size((bytes as f64 / seconds) as u64);
        let path = self.current.lock().map(|path| names::show(&path)).unwrap_or_default();
        bar.set_prefix(format!(
            "{} entries, {}, {rate}/s",
            self.entries.load(Ordering::Relaxed),
            show_size(bytes)
        ));
        bar.set_message(shorten(&path));
        bar.set_position(bytes);
        bar.tick();
    }
}

/// The end of a long path tells more than its beginning.
fn shorten(path: &str) -> String {
    let length = path.chars().count();
    if length <= PATH_SHOWN {
        return path.to_owned();
    }
    let end: String = path.chars().skip(length - PATH_SHOWN + 1).collect();
    format!("\u{2026}{end}")
}
