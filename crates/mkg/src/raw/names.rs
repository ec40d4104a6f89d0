//! Names for people, made from keys.

/// What follows the last `/` or `#` of a key, without a closing `>`; the whole key where that is nothing.
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
    decode_percents(name).replace('_', " ").trim().to_owned()
}

/// A relation's name as its key spells it: as for an entity, and `wasBornIn` reads `was born in`.
pub(super) fn of_relation(key: &str) -> String {
    let letters: Vec<char> = of_entity(key).chars().collect();
    let mut name = String::new();
    for (i, &letter) in letters.iter().enumerate() {
        let begins_word = letter.is_uppercase() && i > 0 && letters[i - 1].is_lowercase();
        // An abbreviation keeps its capitals: `hasISBN`.
        let one_capital = letters.get(i + 1).is_none_or(|next| next.is_lowercase());
        match begins_word {
            true if one_capital => {
                name.push(' ');
                name.extend(letter.to_lowercase());
            }
            true => name.extend([' ', letter]),
            false => name.push(letter),
        }
    }
    name
}

/// `%2C` as a comma; what is no such code, or decodes to no UTF-8, stays as it is.
pub(super) fn decode_percents(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|code| first == b'%' && code.iter().all(u8::is_ascii_hexdigit));
        let decoded = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        bytes.push(decoded.unwrap_or(first));
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_end_in_names() {
        assert_eq!(of_entity("<http://dbpedia.org/resource/Naga,_Camarines_Sur>"), "Naga, Camarines Sur");
        assert_eq!(of_entity("http://dbpedia.org/resource/Caf%C3%A9"), "Café");
        assert_eq!(of_entity("AC/DC"), "AC/DC");
        assert_eq!(last_segment("http://www.wikidata.org/entity/Q42"), "Q42");
        assert_eq!(last_segment("/m/027rn"), "027rn");
        assert_eq!(last_segment("/"), "/");
    }

    #[test]
    fn relations_read_as_words() {
        assert_eq!(of_relation("wasBornIn"), "was born in");
        assert_eq!(of_relation("_member_of_domain_topic"), "member of domain topic");
        assert_eq!(of_relation("<http://www.w3.org/2000/01/rdf-schema#seeAlso>"), "see also");
        assert_eq!(of_relation("hasISBN"), "has ISBN");
    }

    #[test]
    fn broken_percent_codes_stay() {
        for text in ["100%", "%2", "%zz", "%ff", "%é"] {
            assert_eq!(decode_percents(text), text);
        }
    }
}
