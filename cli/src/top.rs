//! `plimsoll top`: the cluster on the whole terminal, live.

mod model;
mod screen;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use clap::Args;
use plimsoll_host::Host;
use plimsoll_host::config::Span;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};
use model::Model;

/// How often keys are looked for.
const KEYS: Duration = Duration::from_millis(50);
/// How long one look at the cluster may take before the picture says that it is old.
const LOOK_MAX: Duration = Duration::from_secs(5);
const EVERY_MIN: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// How often it looks
    #[arg(long, value_name = "TIME", default_value = "1s")]
    every: Span,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What a key asks for.
enum Asked {
    Nothing,
    Pause,
    Draw,
    Quit,
}

pub(crate) async fn run(args: TopArgs, host: &Host) -> Outcome {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let why = "top needs a terminal; without one use `plimsoll disk --watch` or `plimsoll cluster health --watch`";
        return Err(Failure::new(Code::Usage, why));
    }
    let client = args.connect.connect(host).await?;
    let every = args.every.0.max(EVERY_MIN);
    let mut model = Model::default();
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut terminal = ratatui::try_init()?;
    let ended = async {
        let mut next = host.clock.now();
        loop {
            if host.clock.now() >= next && !model.paused {
                match host.clock.timeout(LOOK_MAX, model::look(&client, host)).await {
                    Ok(Ok(look)) => model.take(look),
                    Ok(Err(error)) => model.lost(error.to_string(), host.clock.now()),
                    Err(_) => model.lost("the controllers do not answer".to_owned(), host.clock.now()),
                }
                next = host.clock.now().saturating_add(every);
                terminal.draw(|frame| screen::draw(frame, &model, colours))?;
            }
            match asked()? {
                Asked::Quit => return Ok::<(), Failure>(()),
                Asked::Pause => {
                    model.paused = !model.paused;
                    terminal.draw(|frame| screen::draw(frame, &model, colours))?;
                }
                Asked::Draw => {
                    terminal.draw(|frame| screen::draw(frame, &model, colours))?;
                }
                Asked::Nothing => host.clock.sleep(KEYS).await,
            }
        }
    }
    .await;
    ratatui::try_restore()?;
    ended
}

fn asked() -> Result<Asked, Failure> {
    if !event::poll(Duration::ZERO)? {
        return Ok(Asked::Nothing);
    }
    Ok(match event::read()? {
        Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
            KeyCode::Char('q') | KeyCode::Esc => Asked::Quit,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Asked::Quit,
            KeyCode::Char('p' | ' ') => Asked::Pause,
            _ => Asked::Nothing,
        },
        Event::Resize(_, _) => Asked::Draw,
        _ => Asked::Nothing,
    })
}
