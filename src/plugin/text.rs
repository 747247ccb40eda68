//! Text that a plugin wrote, made safe to show.

use std::fmt::Write as _;

/// A guest's text made safe for a terminal, a log and a file: control and direction-changing characters are escaped, and
/// what is longer than `max` bytes is cut.
pub(super) fn printable(text: &str, max: usize) -> String {
    let mut safe = String::with_capacity(text.len().min(max));
    for (position, character) in text.char_indices() {
        if position >= max {
            let _ = write!(safe, "... ({} bytes in all)", text.len());
            break;
        }
        match character {
            '\n' => safe.push_str(" | "),
            '\t' => safe.push(' '),
            _ if is_unsafe(character) => safe.extend(character.escape_unicode()),
            _ => safe.push(character),
        }
    }
    safe
}

/// Characters that can hide or fake text: controls, directions and invisible ones.
pub(super) fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_guest_cannot_steer_a_terminal() {
        for (text, safe) in [
            ("plain", "plain"),
            ("\u{1b}[2Jgone", "\\u{1b}[2Jgone"),
            ("abc\u{202e}fed", "abc\\u{202e}fed"),
            ("a\0b", "a\\u{0}b"),
        ] {
            assert_eq!(printable(text, 100), safe);
        }
        assert_eq!(printable("abcdefgh", 3), "abc... (8 bytes in all)");
    }
}
