//! The manifest of the published datasets, and manifests that are refused.

use dsom_fetch::{Manifest, PUBLISHED, Wanted};
use stage::Kind;
use stage::files::digest;
use std::path::PathBuf;

const SIX: [&str; 6] = ["db15k", "fb15k-237", "mkg-w", "mkg-y", "wn18", "wn9"];

fn published() -> Vec<Wanted> {
    let manifest = Manifest::parse(PUBLISHED).unwrap();
    assert!(manifest.dataset.keys().eq(&SIX));
    SIX.iter().flat_map(|name| manifest.wanted(name, true).unwrap()).collect()
}

#[test]
fn published_files_are_pinned_to_a_commit_and_a_digest() {
    let files = published();
    for file in &files {
        let is_commit = |part: &str| part.len() == 40 && part.bytes().all(|b| b.is_ascii_hexdigit());
        assert!(file.address.starts_with("https://") && file.address.split('/').any(is_commit), "{file:?}");
        let is_token = file.address.contains("/tokens/");
        let is_digest = |text: &String| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let is_known = file.bytes.is_some() && file.sha256.as_ref().is_some_and(is_digest);
        assert_eq!(is_known, !is_token, "{file:?}");
    }
    let named = |place: &str| files.iter().filter(|file| file.place.as_os_str() == place).count();
    assert_eq!((named("mkg-w/train.txt"), named("fb15k-237/entity2wikidata.json")), (1, 4));
}

#[test]
#[ignore = "needs the published datasets in the folder DSOM_DATA"]
fn published_digests_are_those_of_the_files() {
    let data =
        PathBuf::from(std::env::var_os("DSOM_DATA").expect("DSOM_DATA names the folder of the datasets"));
    for file in published().iter().filter(|file| file.sha256.is_some() && !file.place.ends_with("vocab.txt"))
    {
        assert!(file.is(&digest(&data.join(&file.place)).unwrap()), "{}", file.place.display());
    }
}

#[test]
fn a_manifest_that_leads_astray_is_refused() {
    let of = |name: &str, source: &str| {
        let files = format!("files = [{{ name = '{name}', source = '{source}', path = 'p' }}]");
        let head =
            "source.s = { address = 'http://x', licence = '' }\n[dataset.d]\ncitation = ''\nelsewhere = []";
        Manifest::parse(&format!("{head}\n{files}"))
    };
    assert!(of("a/b", "s").is_ok());
    for (name, source) in [("../a", "s"), ("/a", "s"), ("a", "t")] {
        assert_eq!(of(name, source).unwrap_err().kind(), Kind::Data, "{name}");
    }
}
