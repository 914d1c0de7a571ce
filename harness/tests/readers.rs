//! Every reader of foreign bytes, given seeds and thousands of changed seeds: it returns, its refusal is one short line, and it
//! allocates no more than the bytes account for. The fuzz targets of `harness/fuzz` call the same functions with libFuzzer.

use std::alloc::System;
use std::fs::File;
use std::io::{Seek, Write};
use std::path::PathBuf;

use cap::Cap;
use nsa_harness::readers::{READERS, Reader};

#[global_allocator]
static ALLOCATED: Cap<System> = Cap::new(System, usize::MAX);

/// Changed seeds for each reader.
const CHANGED: u64 = 4000;
/// The longest input: seeds are spliced into each other.
const BYTES_MAX: usize = 1 << 16;
/// What a reader may allocate in all, freed again or not, beside a multiple of its input's length: a small problem's tensors, and
/// the kernels' sources that a record's hashes are of.
const ALLOCATED_MAX: usize = 8 << 20;
/// Passes over the input, copies of it, and what JSON or TOML makes of it.
const ALLOCATED_PER_BYTE: usize = 100;

/// The seeds of a reader, by name.
fn seeds(reader: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(reader);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// The file that holds what a reader was last given: a reader that aborts or hangs says nothing itself.
struct Last(File, PathBuf);

impl Last {
    fn new() -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("readers-last-input");
        Last(File::create(&path).unwrap(), path)
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.0.rewind().unwrap();
        self.0.write_all(bytes).unwrap();
        self.0.set_len(bytes.len() as u64).unwrap();
    }
}

fn call(last: &mut Last, name: &str, read: Reader, bytes: &[u8]) -> Result<(), String> {
    last.keep(bytes);
    let at = last.1.display();
    let before = ALLOCATED.total_allocated();
    let outcome = std::panic::catch_unwind(|| read(bytes)).unwrap_or_else(|_| panic!("{name}: panics on {at}"));
    let allocated = ALLOCATED.total_allocated() - before;
    let most = ALLOCATED_MAX + ALLOCATED_PER_BYTE * bytes.len();
    assert!(allocated <= most, "{name}: {allocated} bytes allocated for the {} bytes of {at}", bytes.len());
    if let Err(refusal) = &outcome {
        let lines = !refusal.contains(|letter: char| letter.is_control() && letter != '\n');
        assert!(lines && refusal.len() < 4096, "{name}: {refusal:?}");
    }
    outcome
}

// One test: what others allocate meanwhile would be counted too.
#[test]
fn readers_survive_whatever_they_are_given() {
    let mut last = Last::new();
    for (name, read) in READERS {
        let seeds = seeds(name);
        let start = std::time::Instant::now();
        let good = seeds.iter().filter(|seed| call(&mut last, name, read, seed).is_ok()).count();
        assert!(good > 0 && good < seeds.len(), "{name}: of {} seeds, {good} are good", seeds.len());
        let mut random = Random(0x5eed);
        let mut taken = 0;
        for _ in 0..CHANGED {
            let bytes = changed(&seeds, &mut random);
            taken += usize::from(call(&mut last, name, read, &bytes).is_ok());
        }
        // Changes that no reader takes would test its first line alone.
        eprintln!("{:?}", start.elapsed());
        println!("{name}: {} seeds, {CHANGED} changed ones, {taken} of them taken", seeds.len());
        assert!(taken > 0, "{name}");
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

/// One of the seeds with one to three changes. A header of a tensor file is changed as text, and its length usually put right.
fn changed(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let seed = &seeds[random.below(seeds.len())];
    let other = &seeds[random.below(seeds.len())];
    let Some((header, data)) = split(seed) else {
        let mut text = seed.clone();
        (0..=random.below(3)).for_each(|_| change(&mut text, other, random));
        return text;
    };
    let (mut header, mut data) = (header.to_vec(), data.to_vec());
    for _ in 0..=random.below(3) {
        let part = if random.below(4) == 0 { &mut data } else { &mut header };
        change(part, other, random);
    }
    let length = if random.below(8) == 0 { number(random).parse().unwrap_or(u64::MAX) } else { header.len() as u64 };
    [&length.to_le_bytes()[..], &header, &data].concat()
}

/// The header and the data of a tensor file.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    rest.split_at_checked(length)
}

/// A number that readers get wrong.
fn number(random: &mut Random) -> &'static str {
    random.of(&[
        "0",
        "1",
        "2",
        "3",
        "7",
        "16",
        "255",
        "65536",
        "2147483648",
        "4294967295",
        "268435457",
        "9007199254740993",
        "100000000000000000",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "1e400",
        "-1",
        "-0",
        "0.5",
        "nan",
        "1e-320",
        "99999999999999999999999999999999999999999999",
    ])
}

/// A text that readers get wrong.
fn word(random: &mut Random) -> &'static str {
    random.of(&[
        "null",
        "true",
        "{}",
        "[]",
        "\"\"",
        "\"\\u0000\"",
        "\\u001b[2J",
        "[[[[[[[[",
        "{\"a\":",
        "\n",
        "\r\n",
        "\"f64\"",
        "BOOL",
        "F4",
        "F8_E4M3",
        "U64",
        "self",
        "..",
        "/",
        "\\",
        "given",
        "normal",
        "\u{202e}",
        "q",
        "\"\"\"",
        "a.b.c",
        "inf",
    ])
}

fn change(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let end = (at + random.below(24)).min(bytes.len());
    let numbers = numbers(bytes);
    match random.below(9) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 => drop(bytes.splice(at..end, Vec::new())),
        2 => drop(bytes.splice(at..at, bytes[at..end].repeat(random.below(40)))),
        3 => bytes.truncate(at),
        4 => drop(bytes.splice(at..end, word(random).bytes())),
        5 if !other.is_empty() => {
            let from = random.below(other.len());
            let until = (from + random.below(200)).min(other.len());
            bytes.splice(at..end, other[from..until].iter().copied());
        }
        6 | 7 if !numbers.is_empty() => {
            let position = numbers[random.below(numbers.len())].clone();
            bytes.splice(position, number(random).bytes());
        }
        // One number of the file in the place of another.
        8 if !numbers.is_empty() => {
            let from = bytes[numbers[random.below(numbers.len())].clone()].to_vec();
            let position = numbers[random.below(numbers.len())].clone();
            bytes.splice(position, from);
        }
        _ => {}
    }
    bytes.truncate(BYTES_MAX);
}

/// Where runs of digits stand.
fn numbers(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut found: Vec<std::ops::Range<usize>> = Vec::new();
    for position in (0..bytes.len()).filter(|position| bytes[*position].is_ascii_digit()) {
        match found.last_mut().filter(|last| last.end == position) {
            Some(last) => last.end += 1,
            None => found.push(position..position + 1),
        }
    }
    found
}
