//! `splitd top`: an instance live, straight from its shared memory, so that it
//! shows one that is stuck or dead, too. It asks nothing of any process of the
//! instance, and reads once a second.

mod view;

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::instance::{Instance, InstanceArguments};
use super::{Exit, Failure};
use view::{Sort, View};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Between two looks, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    interval: u64,
    #[command(flatten)]
    instance: InstanceArguments,
}

pub(super) fn run(arguments: &Arguments, _: &mut dyn Write) -> Result<Exit, Failure> {
    let runtime_dir = match arguments.instance.runtime_dir() {
        Ok(runtime_dir) => runtime_dir,
        Err(exit) => return Ok(exit),
    };
    if !io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "top draws on a terminal; `splitd status` prints once, to anything".to_owned(),
        ));
    }
    let mut instance = Instance::open(&runtime_dir)?;
    let mut view = View::new(instance.look()?);
    // Puts a hook before the panic's, so that the terminal is whole again whatever happens.
    let mut terminal = ratatui::try_init()?;
    let outcome = show(&mut terminal, &mut instance, &mut view, Duration::from_millis(arguments.interval));
    ratatui::try_restore()?;
    outcome.map(|()| Exit::Done)
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    instance: &mut Instance,
    view: &mut View,
    interval: Duration,
) -> Result<(), Failure> {
    let mut due = Instant::now() + interval;
    loop {
        terminal.draw(|frame| view.draw(frame))?;
        if event::poll(due.saturating_duration_since(Instant::now()))? {
            // Whatever else comes (a new size, say) is seen in the next drawing.
            if let Event::Key(key) = event::read()?
                && press(view, key) == Press::Quit
            {
                return Ok(());
            }
        }
        if Instant::now() >= due {
            due = Instant::now() + interval;
            if !view.paused {
                match instance.look() {
                    Ok(snapshot) => view.take(snapshot),
                    Err(failure) => view.lost = Some(failure.to_string()),
                }
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Press {
    Quit,
    Other,
}

fn press(view: &mut View, key: KeyEvent) -> Press {
    if key.kind == KeyEventKind::Release {
        return Press::Other;
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return Press::Quit,
        KeyCode::Char('c') if control => return Press::Quit,
        KeyCode::Char('p' | ' ') => view.paused = !view.paused,
        KeyCode::Char('s') => view.sort = view.sort.next(),
        KeyCode::Char('n') => view.sort = Sort::Place,
        KeyCode::Char('r') => view.sort = Sort::Requests,
        KeyCode::Char('c') => view.sort = Sort::Connections,
        KeyCode::Char('t') => view.sort = Sort::Turn,
        _ => {}
    }
    Press::Other
}

#[cfg(test)]
mod tests;
