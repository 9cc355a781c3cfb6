//! An escape sequence that Nushell gives for a style, as a style of this view.

use ratatui::style::{Color, Modifier, Style};

/// What `\x1b[1;31m` says; a number that is not known says nothing.
pub fn style(sequence: &str) -> Style {
    let numbers = sequence.split(['\x1b', '[', ';', 'm']).filter_map(|number| number.parse::<u8>().ok());
    let mut numbers = numbers.into_iter();
    let mut style = Style::new();
    while let Some(number) = numbers.next() {
        style = match number {
            1 => style.add_modifier(Modifier::BOLD),
            2 => style.add_modifier(Modifier::DIM),
            3 => style.add_modifier(Modifier::ITALIC),
            4 => style.add_modifier(Modifier::UNDERLINED),
            5 => style.add_modifier(Modifier::SLOW_BLINK),
            7 => style.add_modifier(Modifier::REVERSED),
            8 => style.add_modifier(Modifier::HIDDEN),
            9 => style.add_modifier(Modifier::CROSSED_OUT),
            // The first sixteen of the terminal's 256 colours are these.
            30..=37 => style.fg(Color::Indexed(number - 30)),
            40..=47 => style.bg(Color::Indexed(number - 40)),
            90..=97 => style.fg(Color::Indexed(number - 90 + 8)),
            100..=107 => style.bg(Color::Indexed(number - 100 + 8)),
            38 => colour(&mut numbers).map_or(style, |colour| style.fg(colour)),
            48 => colour(&mut numbers).map_or(style, |colour| style.bg(colour)),
            _ => style,
        };
    }
    style
}

/// One of 256 (`5;n`), or of all (`2;red;green;blue`).
fn colour(numbers: &mut impl Iterator<Item = u8>) -> Option<Color> {
    match numbers.next()? {
        5 => numbers.next().map(Color::Indexed),
        2 => Some(Color::Rgb(numbers.next()?, numbers.next()?, numbers.next()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nushell_gives_is_understood() {
        assert_eq!(style(""), Style::new());
        assert_eq!(style("\x1b[32m"), Style::new().fg(Color::Indexed(2)));
        assert_eq!(style("\x1b[1;31m"), Style::new().fg(Color::Indexed(1)).add_modifier(Modifier::BOLD));
        let both = Style::new().fg(Color::Rgb(255, 0, 9)).bg(Color::Indexed(12));
        assert_eq!(style("\x1b[104;38;2;255;0;9m"), both);
        assert_eq!(style("\x1b[38;5;208m"), Style::new().fg(Color::Indexed(208)));
        assert_eq!(style("\x1b[38;5"), Style::new(), "torn");
    }
}
