//! Foreign texts on a terminal: a name must not move the cursor, change colours, or turn the reading direction.

use std::borrow::Cow;

/// Escapes control characters, marks of reading direction and invisible marks as `\u001b`; keeps line ends and tabs.
/// Inside the strings of a JSON line, the escapes leave the JSON's value the same.
///
/// ```
/// assert_eq!(program::printable("a\u{1b}[2Jb\n"), "a\\u001b[2Jb\n");
/// assert_eq!(program::printable("Čapek"), "Čapek");
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// Escapes a line that a logger coloured, but keeps the escape character: the logger escapes it in the message itself.
pub(crate) fn printable_log(text: &str) -> Cow<'_, str> {
    escape(text, |c| c == '\u{1b}')
}

fn escape(text: &str, stays: fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(|c| is_unseen(c) && !stays(c)) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unseen(c) && !stays(c) {
            escaped += &format!("\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped.into()
}

/// Tells whether a character is invisible and acts on its surroundings. Joiners do not count: scripts need them.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || c == '\u{feff}'
        || (c.is_control() && c != '\n' && c != '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_the_terminal_is_written_out() {
        assert_eq!(printable("\u{202e}txt\u{9b}31m\r\u{7}"), "\\u202etxt\\u009b31m\\u000d\\u0007");
        assert!(matches!(printable("a\tb\nšč 漢字 👩\u{200d}🚀"), Cow::Borrowed(_)));
        assert_eq!(printable_log("\u{1b}[32mINFO\u{1b}[0m \u{202e}x"), "\u{1b}[32mINFO\u{1b}[0m \\u202ex");
    }
}
