//! One of the readers, named by the variable READER, against whatever libFuzzer makes of the corpus.
#![no_main]

use dsom_tests::readers::UntrustedFile;
use std::sync::LazyLock;

static READER: LazyLock<&UntrustedFile> = LazyLock::new(|| {
    let name = std::env::var("READER").expect("READER=name");
    UntrustedFile::ALL.iter().find(|reader| reader.name == name).expect("READER is one of dsom_tests::readers")
});

libfuzzer_sys::fuzz_target!(
    // libFuzzer's hook would end the process at a panic that `stage::caught` catches.
    init: drop(std::panic::take_hook()),
    |bytes: &[u8]| READER.read(bytes)
);
