//! The model as a screen. What does not fit is left out from the right: names, states and bars stay longest.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState, Wrap};
use shimd_api::duration::format_duration;
use shimd_api::wire::{ServiceRow, SocketRow, Status};

use super::model::{Model, SPAN};
use super::spells::{Spells, is_down};

const KEYS: &str = " q leave  ↑↓ select  r restart --clean  s start  x stop  c check";
/// Lines for the selected service.
const DETAILS: u16 = 8;

/// Draws it.
pub fn draw(frame: &mut Frame, model: &Model) {
    let details = DETAILS.min(frame.area().height.saturating_sub(6));
    let rows = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(details),
        Constraint::Length(1),
    ]);
    let [head, table, below, foot] = rows.areas(frame.area());
    frame.render_widget(title(model), head);
    services(frame, table, model);
    frame.render_widget(
        Paragraph::new(about(model, usize::from(below.width))).wrap(Wrap { trim: false }),
        below,
    );
    frame.render_widget(bottom(model), foot);
}

fn title(model: &Model) -> Line<'static> {
    let Some(look) = &model.look else { return Line::from(" proc top: asking shimd …") };
    let (running, failed, others) = model.counts();
    let mut words = vec![
        Span::styled(" proc top ", Style::new().add_modifier(Modifier::REVERSED)),
        Span::raw(format!(" shimd {} (pid {})  ", look.info.version, look.info.pid)),
        Span::styled(format!("{running} running"), model.style("running")),
    ];
    if failed > 0 {
        words.push(Span::styled(format!("  {failed} failed"), model.style("failed")));
    }
    if others > 0 {
        words.push(Span::raw(format!("  {others} other")));
    }
    if let Some(trouble) = look.info.troubles.first() {
        words.push(Span::styled(format!("  {}", printable(trouble)), model.style("unknown")));
    }
    Line::from(words)
}

fn services(frame: &mut Frame, area: Rect, model: &Model) {
    let width = usize::from(area.width);
    let longest = model.services().iter().map(|row| row.name.chars().count()).max().unwrap_or(4);
    let name = longest.clamp(4, (width / 3).max(4));
    // Each with the width of the screen from which on it is there.
    let columns: [(&str, usize, usize); 6] = [
        ("name", name, 0),
        ("status", 8, 0),
        ("sockets", 7, 40),
        ("uptime", 8, 55),
        ("restarts", 8, 64),
        ("pid", 7, 72),
    ];
    let shown: Vec<_> = columns.into_iter().filter(|(_, _, from)| width >= *from).collect();
    let taken: usize = shown.iter().map(|(_, width, _)| width + 1).sum();
    let bar = width.saturating_sub(taken).min(60);
    let now = model.look.as_ref().map_or(0, |look| look.now);
    let rows = model.services().iter().map(|row| {
        let mut cells: Vec<Cell> = shown.iter().map(|(column, _, _)| cell(model, row, column)).collect();
        let levels =
            model.spells.get(&row.name).map_or_else(Vec::new, |spells: &Spells| spells.bar(now, SPAN, bar));
        let spans =
            levels.into_iter().map(|level| Span::styled(level.cell().to_string(), model.style(level.word())));
        cells.push(Cell::from(Line::from(spans.collect::<Vec<_>>())));
        Row::new(cells)
    });
    let widths = shown.iter().map(|(_, width, _)| *width).chain([bar]);
    let widths = widths.map(|width| Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX)));
    let head = shown.iter().map(|(column, _, _)| (*column).to_owned()).chain(["last 10 minutes".to_owned()]);
    let table = Table::new(rows, widths)
        .header(Row::new(head).style(Style::new().add_modifier(Modifier::BOLD)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::default().with_selected(model.at());
    frame.render_stateful_widget(table, area, &mut state);
}

fn cell(model: &Model, row: &ServiceRow, column: &str) -> Cell<'static> {
    match column {
        "name" => Cell::from(row.name.clone()),
        "status" => Cell::from(row.status.to_string()).style(model.style(row.status.as_str())),
        "sockets" => {
            let style = if row.sockets_ok < row.sockets && !is_down(row.status) {
                model.style("failed")
            } else {
                Style::new()
            };
            Cell::from(format!("{}/{}", row.sockets_ok, row.sockets)).style(style)
        }
        "uptime" => Cell::from(row.uptime.map(short).unwrap_or_default()),
        "restarts" => Cell::from(row.restarts.to_string()),
        _ => Cell::from(row.pid.map(|pid| pid.to_string()).unwrap_or_default()),
    }
}

/// The two largest units.
fn short(nanos: i64) -> String {
    let text = format_duration(Duration::from_secs(nanos.unsigned_abs() / 1_000_000_000));
    text.split(' ')
        .take(2)
        .collect::<Vec<_>>()
        .join(" ")
        .replace("min", "m")
        .replace("sec", "s")
        .replace(' ', "")
}

fn about(model: &Model, width: usize) -> Vec<Line<'static>> {
    let Some(row) = model.at().and_then(|at| model.services().get(at)) else {
        let words = if model.look.is_some() { "no service is registered: proc register" } else { "" };
        return vec![Line::from(""), Line::from(format!(" {words}"))];
    };
    let mut lines = vec![Line::from("─".repeat(width))];
    let mut first = vec![Span::styled(format!(" {} ", row.name), Style::new().add_modifier(Modifier::BOLD))];
    first.push(Span::styled(row.status.to_string(), model.style(row.status.as_str())));
    if let Some(reason) = &row.health_reason {
        first.push(Span::raw(format!(": {}", printable(reason))));
    }
    lines.push(Line::from(first));
    lines.extend(model.sockets().map(|socket| about_socket(model, row.status, socket)));
    lines
}

fn about_socket(model: &Model, status: Status, row: &SocketRow) -> Line<'static> {
    // A file that is left over alarms nobody while the service is down.
    let is_over = is_down(status) && matches!(row.verdict.as_str(), "stale" | "absent");
    let style = model.style(if is_over { Status::Inactive.as_str() } else { &row.verdict });
    let mut words =
        vec![Span::raw(format!(" {} ", printable(&row.socket))), Span::styled(row.verdict.clone(), style)];
    if let (Some(pending), Some(backlog)) = (row.pending, row.backlog) {
        words.push(Span::raw(format!("  queue {pending}/{backlog}")));
    }
    if row.relinked > 0 {
        words.push(Span::raw(format!("  put back {} times", row.relinked)));
    }
    if let Some(reason) = &row.reason {
        words.push(Span::raw(format!("  {}", printable(reason))));
    }
    Line::from(words)
}

fn bottom(model: &Model) -> Line<'static> {
    let reversed = Style::new().add_modifier(Modifier::REVERSED);
    match (&model.question, &model.message) {
        (Some(act), _) => {
            Line::styled(format!(" {}? y/n ", act.words()), reversed.patch(model.style("starting")))
        }
        (None, Some(message)) => Line::styled(format!(" {} ", printable(message)), reversed),
        (None, None) => Line::styled(KEYS, Style::new().add_modifier(Modifier::DIM)),
    }
}

/// Processes choose their names: nothing in a text may do anything to the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::look;
    use super::super::model::{Key, Model};
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn screen(model: &Model, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect()
    }

    fn model() -> Model {
        let mut model = Model::default();
        model.take(look(&["bad-web", "db"], SPAN));
        model
    }

    #[test]
    fn eighty_by_twenty_four() {
        let lines = screen(&model(), 80, 24);
        assert_eq!(lines[0], " proc top  shimd 0.1.0 (pid 1)  1 running  1 failed");
        assert!(
            lines[1].starts_with("name    status   sockets uptime   restarts pid     last 10 minutes"),
            "{}",
            lines[1]
        );
        assert!(lines[2].starts_with("bad-web failed   0/1     1hr2m    2        4711"), "{}", lines[2]);
        assert!(lines[3].starts_with("db      running  1/1"), "{}", lines[3]);
        assert_eq!(lines[15], "─".repeat(80));
        assert_eq!(lines[16], " bad-web failed: declared socket missing on disk: rpc.sock");
        assert!(
            lines[17].starts_with(" rpc.sock dangling  queue 0/128  put back 3 times  removed by rm"),
            "{}",
            lines[17]
        );
        assert_eq!(lines[23], KEYS);
    }

    #[test]
    fn any_size_is_drawn() {
        let mut model = model();
        model.key(Key::Letter('r'));
        for (width, height) in [(20, 24), (80, 5), (1, 1), (200, 60), (3, 2)] {
            let lines = screen(&model, width, height);
            assert_eq!(lines.len(), usize::from(height));
        }
        let lines = screen(&model, 20, 10);
        assert!(lines.iter().any(|line| line.starts_with("bad-we failed")), "{lines:#?}");
        assert!(screen(&model, 80, 24)[23].starts_with(" restart --clean bad-web? y/n"));
    }

    #[test]
    fn nothing_yet_and_nothing_at_all() {
        assert_eq!(screen(&Model::default(), 40, 10)[0], " proc top: asking shimd …");
        let mut empty = Model::default();
        empty.take(look(&[], 1));
        assert!(screen(&empty, 60, 24).iter().any(|line| line.contains("no service is registered")));
    }

    #[test]
    fn a_reason_cannot_write_to_the_terminal() {
        let mut model = model();
        model.message = Some("a\u{1b}[2Jb".into());
        assert_eq!(screen(&model, 80, 24)[23], " a [2Jb");
    }
}
