//! Texts become token ids.

use rayon::prelude::*;
use stage::{Error, Kind, Result};
use std::collections::HashMap;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PostProcessor, PreTokenizedString,
    PreTokenizer, Tokenizer, TruncationParams,
};

/// The largest number of words of a vocabulary made from the texts; rarer words are unknown.
const MAX_WORDS: usize = 60_000;
/// The token for padding in a vocabulary made from the texts, with id 0.
const PADDING: &str = "[PAD]";
/// The token for a word that is not in the vocabulary.
const UNKNOWN: &str = "[UNK]";

/// Token ids of texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// The tokens of each text; empty where there is no text.
    pub ids: Vec<Vec<u32>>,
    /// The number of texts that were longer than the limit.
    pub truncated: usize,
}

impl Tokens {
    /// Tokenises `texts`, in which an empty text means none, into at most `max_tokens` tokens each. The limit includes
    /// the special tokens and must leave room for one other.
    pub fn new(texts: &[String], tokenizer: &Tokenizer, max_tokens: usize) -> Result<Tokens> {
        let special = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        if max_tokens <= special {
            let message = format!("`max_tokens` is {max_tokens}, of which {special} are special tokens");
            return Err(Error::usage(message).hint("set it to 128, for example"));
        }
        // The tokenizer stops at its limit silently: a second limit, one token higher, shows which texts go on.
        let (exact, beyond) = (limited(tokenizer, max_tokens)?, limited(tokenizer, max_tokens + 1)?);
        let encoded = texts.par_iter().map(|text| match ids(&beyond, text)? {
            longer if longer.len() > max_tokens => Ok((ids(&exact, text)?, true)),
            ids => Ok((ids, false)),
        });
        let encoded: Vec<(Vec<u32>, bool)> = encoded.collect::<Result<_>>()?;
        let truncated = encoded.iter().filter(|(_, truncated)| *truncated).count();
        Ok(Tokens { ids: encoded.into_iter().map(|(ids, _)| ids).collect(), truncated })
    }
}

/// The number of tokens of the longest text.
pub(crate) fn longest(texts: &[impl AsRef<[u32]>]) -> usize {
    texts.iter().map(|ids| ids.as_ref().len()).max().unwrap_or(0)
}

/// The tokenizer with `max_tokens` in place of its own limit, and without padding.
fn limited(tokenizer: &Tokenizer, max_tokens: usize) -> Result<Tokenizer> {
    let mut tokenizer = tokenizer.clone();
    let truncation = TruncationParams { max_length: max_tokens, ..TruncationParams::default() };
    tokenizer.with_padding(None).with_truncation(Some(truncation)).map_err(failed)?;
    Ok(tokenizer)
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    Ok(tokenizer.encode_fast(text, true).map_err(failed)?.get_ids().to_vec())
}

fn failed(error: tokenizers::Error) -> Error {
    Error::new(Kind::Unexpected, "tokenising failed").because(error)
}

/// A tokeniser whose vocabulary is the words of `texts` in lower case, the most frequent first; words of the same
/// frequency are in alphabetical order.
pub fn word_level(texts: &[String]) -> Result<Tokenizer> {
    // Converts to lower case, and removes accents and control characters.
    let normalizer = BertNormalizer::new(true, true, None, true);
    let mut counts = HashMap::<String, usize>::new();
    for text in texts {
        let mut normalized = NormalizedString::from(text.as_str());
        normalizer.normalize(&mut normalized).map_err(failed)?;
        let mut split = PreTokenizedString::from(normalized);
        BertPreTokenizer.pre_tokenize(&mut split).map_err(failed)?;
        for (word, ..) in split.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
    }
    let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
    counts.sort_by(|(a, many), (b, few)| few.cmp(many).then_with(|| a.cmp(b)));
    counts.truncate(MAX_WORDS);
    // Words are in lower case, so no word equals one of the two special tokens.
    let words = counts.into_iter().map(|(word, _)| word);
    let vocabulary = [PADDING.to_owned(), UNKNOWN.to_owned()].into_iter().chain(words).zip(0..).collect();
    let model = WordLevel::builder().vocab(vocabulary).unk_token(UNKNOWN.to_owned()).build();
    let mut tokenizer = Tokenizer::new(model.map_err(failed)?);
    tokenizer.with_normalizer(Some(normalizer)).map_err(failed)?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_sorted_by_frequency_then_alphabet_and_longer_texts_cut_and_counted() {
        let tokenizer = word_level(&["the cat, the dog", "The bird", ""].map(str::to_owned)).unwrap();
        let words = ["[PAD]", "[UNK]", "the", ",", "bird", "cat", "dog"];
        assert!(words.iter().zip(0..).all(|(word, id)| tokenizer.token_to_id(word) == Some(id)));
        let texts = ["THE cow", "", "the cat, the dog", "dog the cat"].map(str::to_owned);
        let tokens = Tokens::new(&texts, &tokenizer, 3).unwrap();
        assert_eq!(tokens.ids, [vec![2, 1], vec![], vec![2, 5, 3], vec![6, 2, 5]]);
        assert_eq!(tokens.truncated, 1);
        assert!(Tokens::new(&texts, &tokenizer, 0).is_err());
    }
}
