//! The terminal, from the first picture to the last, and the loop between keys and news.

use std::io;
use std::time::Duration;

use nix::unistd::{tcgetpgrp, tcsetpgrp};
use nu_plugin::EngineInterface;
use nu_protocol::{LabeledError, Span};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::{Act, Key, Model};
use super::source::{News, Source};
use super::style::style;
use super::view;
use crate::colours::{Palette, WORDS};
use crate::daemon::Reach;
use crate::error;
use crate::stop::Stop;

/// How long a picture may be old.
const TICK: Duration = Duration::from_millis(50);

/// Shows it until the user leaves.
///
/// # Errors
/// No terminal, or one that refuses; the terminal is as it was before.
pub fn show(
    engine: &EngineInterface,
    reach: Reach,
    palette: &Palette,
    head: Span,
) -> Result<(), LabeledError> {
    let styles = WORDS.iter().map(|word| ((*word).to_owned(), style(palette.style(word)))).collect();
    let model = Model { styles, ..Model::default() };
    let stop = Stop::default();
    let _ctrl_c = stop.at_ctrl_c(engine)?;
    let before = tcgetpgrp(io::stdout());
    // Else the terminal would stop this process when it reads a key.
    let foreground = engine.enter_foreground()?;
    let shown = picture(model, Source::start(reach, &stop), &stop);
    // Nushell takes the terminal back. One that runs a script is no shell with jobs: the kernel stops it, if it does so
    // from the background.
    if let Ok(before) = before {
        let _ = tcsetpgrp(io::stdout(), before);
    }
    drop(foreground);
    shown.map_err(|problem| error::no_terminal(&problem.to_string(), head))
}

fn picture(model: Model, source: Source, stop: &Stop) -> io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let shown = run(&mut terminal, model, source, stop);
    shown.and(ratatui::try_restore())
}

fn run(terminal: &mut DefaultTerminal, mut model: Model, source: Source, stop: &Stop) -> io::Result<()> {
    let mut drawn = false;
    while !stop.is_set() {
        let mut changed = !drawn;
        for news in source.news.try_iter() {
            take(&mut model, news);
            changed = true;
        }
        if changed {
            terminal.draw(|frame| view::draw(frame, &model))?;
            drawn = true;
        }
        if !event::poll(TICK)? {
            continue;
        }
        drawn = false;
        let Event::Key(key) = event::read()? else { continue };
        match known(key).and_then(|key| model.key(key)) {
            Some(Act::Quit) => return Ok(()),
            Some(act) => source.act(act),
            None => {}
        }
    }
    Ok(())
}

fn take(model: &mut Model, news: News) {
    match news {
        News::Past(events) => {
            for event in &events {
                if let Some(service) = &event.service {
                    model.spells.entry(service.clone()).or_default().take(event);
                }
            }
        }
        News::Look(look) => {
            if model.look.is_none() {
                model.message = None;
            }
            model.take(*look);
        }
        News::Done(words) | News::Trouble(words) => model.message = Some(words),
    }
}

fn known(key: KeyEvent) -> Option<Key> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    Some(match key.code {
        KeyCode::Char('c' | 'd') if control => Key::Quit,
        KeyCode::Esc => Key::Quit,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Char(letter) if !control => Key::Letter(letter),
        _ => return None,
    })
}
