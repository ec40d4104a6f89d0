//! Files that fuzzing begins with, and the smallest of those that it found.

use dsom_tests::readers::UntrustedFile;
use dsom_tests::root;

#[test]
fn every_reader_survives_the_corpus() {
    for kind in &UntrustedFile::ALL {
        let files = std::fs::read_dir(root().join("fuzz/corpus").join(kind.name)).unwrap();
        let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        assert!(!files.is_empty(), "{}", kind.name);
        files.iter().for_each(|file| kind.read(&std::fs::read(file).unwrap()));
    }
}
