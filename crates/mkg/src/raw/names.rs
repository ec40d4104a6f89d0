//! Names for people, made from keys; and keys that people take for each other.

use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use unicode_normalization::UnicodeNormalization;

use super::lines::trimmed;

/// The part behind the last `/` or `#` of a key, without a closing `>`; the whole key where that is nothing.
pub(super) fn last_segment(key: &str) -> &str {
    let key = key.strip_suffix('>').unwrap_or(key);
    match key.rsplit(['/', '#']).next() {
        Some(segment) if !segment.is_empty() => segment,
        _ => key,
    }
}

/// An entity's name as its key spells it: the end of a URI, with spaces for underscores.
pub(super) fn of_entity(key: &str) -> String {
    // A slash separates only in a URI: `AC/DC` is a name.
    let name = if key.contains("://") { last_segment(key) } else { key };
    decode_escapes(&decode_percents(name)).replace('_', " ").trim().to_owned()
}

/// A relation's name as its key spells it: as for an entity, and `wasBornIn` reads `was born in`.
pub(super) fn of_relation(key: &str) -> String {
    let letters: Vec<char> = of_entity(key).chars().collect();
    let mut name = String::new();
    for (i, &letter) in letters.iter().enumerate() {
        let begins_word = letter.is_uppercase() && i > 0 && letters[i - 1].is_lowercase();
        // An abbreviation keeps its capitals: `hasISBN`.
        let one_capital = letters.get(i + 1).is_none_or(|next| next.is_lowercase());
        if begins_word {
            name.push(' ');
        }
        if begins_word && one_capital {
            name.extend(letter.to_lowercase());
        } else {
            name.push(letter);
        }
    }
    name
}

/// `%2C` as a comma; what is no such code, or decodes to no UTF-8, stays as it is.
pub(super) fn decode_percents(text: &str) -> String {
    percent_decode_str(text).decode_utf8().map_or_else(|_| text.to_owned(), Cow::into_owned)
}

/// `\u00E9` of N-Triples as the letter; what is no such code stays as it is.
fn decode_escapes(text: &str) -> String {
    let mut parts = text.split("\\u");
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..4).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        match code.and_then(char::from_u32) {
            Some(letter) => decoded.extend([letter.to_string().as_str(), &part[4..]]),
            None => decoded.extend(["\\u", part]),
        }
    }
    decoded
}

/// The look of a key: the same for two keys that differ in bytes alone, as `é` of one character and of two do, or a
/// space that does not break and one that does.
pub(super) fn look(key: &str) -> String {
    let key = decode_escapes(key);
    let seen =
        key.nfc().filter(|c| !matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}'));
    seen.map(|c| if c.is_whitespace() { ' ' } else { c }).collect()
}

/// A key without what people leave out or add when they copy one: case, quotes, brackets, underscores, the front of an
/// address.
fn gist(key: &str) -> String {
    let name = if key.contains("://") { last_segment(key) } else { key };
    let name = look(&decode_percents(name)).replace('_', " ");
    name.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>')).to_lowercase()
}

/// A sentence about a key that none of `keys` is: which one it may mean, or what they are like.
pub fn unlike<'a>(key: &str, keys: impl Iterator<Item = &'a str> + Clone) -> String {
    let (shape, meaning) = (look(trimmed(key)), gist(key));
    if let Some(twin) = keys.clone().find(|other| look(other) == shape) {
        let (twin, key) = (twin.escape_default(), key.escape_default());
        return format!("there is `{twin}`, which looks the same as `{key}` but has other bytes");
    }
    match keys.clone().find(|other| gist(other) == meaning).or(keys.clone().next()) {
        Some(other) if gist(other) == meaning => format!("there is `{other}`"),
        Some(first) => format!("they are like `{first}`"),
        None => "there are none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_end_in_names_and_relations_read_as_words() {
        for (key, name) in [
            ("<http://dbpedia.org/resource/Naga,_Camarines_Sur>", "Naga, Camarines Sur"),
            ("http://dbpedia.org/resource/Caf%C3%A9", "Café"),
            (r"<http://a/Caf\u00E9_%2C_b>", "Café , b"),
            ("AC/DC", "AC/DC"),
        ] {
            assert_eq!(of_entity(key), name);
        }
        for (key, name) in [
            ("wasBornIn", "was born in"),
            ("_member_of_domain_topic", "member of domain topic"),
            ("<http://www.w3.org/2000/01/rdf-schema#seeAlso>", "see also"),
            ("hasISBN", "has ISBN"),
        ] {
            assert_eq!(of_relation(key), name);
        }
        assert_eq!(["http://w/entity/Q42", "/m/027rn", "/"].map(last_segment), ["Q42", "027rn", "/"]);
    }

    #[test]
    fn keys_that_people_take_for_each_other() {
        let keys = ["Caf\u{e9}", "New_York", "<http://a/Oslo>"];
        let unlike = |key: &str| super::unlike(key, keys.into_iter());
        let twin = r"there is `Caf\u{e9}`, which looks the same as `Cafe\u{301}` but has other bytes";
        assert_eq!(unlike("Cafe\u{301}"), twin);
        assert!(unlike("New_York\u{200b}").contains(r"New_York\u{200b}"));
        assert_eq!(unlike("\"new york\""), "there is `New_York`");
        assert_eq!(unlike("Oslo"), "there is `<http://a/Oslo>`");
        assert_eq!(unlike("Q42"), "they are like `Caf\u{e9}`");
        assert_eq!(look(r"Caf\u00E9"), look("Cafe\u{301}"));
    }

    #[test]
    fn broken_codes_stay() {
        for text in ["100%", "%2", "%zz", "%ff", "%é"] {
            assert_eq!(decode_percents(text), text);
        }
        assert_eq!(decode_escapes(r"C:\users\u12"), r"C:\users\u12");
    }
}
