//! Files as an enemy would write them: one clear line each, no panic, no large allocation.

use std::path::Path;

use nsa_corpus::{Bundle, Case, Dtype, GoldenCase, Limit, Sizes, TensorFile, read_entries};

/// A tensor file of this header, with `data` bytes of zeros behind it.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// A header whose tensors end at the last byte that 64 bits can number.
fn overflowing() -> String {
    let eighth = 1u64 << 60;
    let tensor = |number: u64| {
        let end = if number == 15 { u64::MAX } else { (number + 1) * eighth };
        let (start, name) = (number * eighth, (b'a' + number as u8) as char);
        format!("\"{name}\":{{\"dtype\":\"U8\",\"shape\":[{}],\"data_offsets\":[{start},{end}]}}", end - start)
    };
    format!("{{{}}}", (0..16).map(tensor).collect::<Vec<_>>().join(","))
}

/// The refusal, which must be one short line.
fn one_line(error: impl std::fmt::Display) -> String {
    let text = error.to_string();
    assert!(!text.contains('\n') && text.len() < 700, "{text}");
    text
}

#[test]
fn a_hostile_tensor_file_is_refused_in_one_line() {
    let tensor = |dtype: &str, shape: &str, start: u64, end: u64| {
        format!("{{\"a\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{start},{end}]}}}}")
    };
    let two = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}";
    let mut huge_header = (10u64 << 30).to_le_bytes().to_vec();
    huge_header.extend(b"{}");
    let mut longest_header = u64::MAX.to_le_bytes().to_vec();
    longest_header.extend(b"{}");
    let mut long_header = (20u64 << 20).to_le_bytes().to_vec();
    long_header.resize(8 + (20 << 20), b' ');
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", Vec::new(), "0 bytes are too few"),
        ("seven bytes", vec![0; 7], "7 bytes are too few"),
        ("10 GB header", huge_header, "the header claims 10737418240 bytes, the file has 10"),
        ("longest header", longest_header, "the header claims 18446744073709551615 bytes"),
        ("20 MB header", long_header, "the header has 20971520 bytes, more than 16777216"),
        ("no header", vec![0; 8], "no readable tensor file"),
        ("no JSON", file("hello", 0), "no readable tensor file"),
        ("no UTF-8", [file("", 0).as_slice(), &[0xff; 4]].concat(), "no readable tensor file"),
        ("an array", file("[1, 2]", 0), "no readable tensor file"),
        ("deep nesting", file(&"[".repeat(200_000), 0), "no readable tensor file"),
        (
            "deep nesting in a tensor",
            file(&format!("{{\"a\":{}", "{\"a\":".repeat(100_000)), 0),
            "no readable tensor file",
        ),
        ("truncated data", file(&tensor("F32", "[4]", 0, 16), 15), "no readable tensor file"),
        ("trailing data", file(&tensor("F32", "[4]", 0, 16), 17), "no readable tensor file"),
        ("huge dims", file(&tensor("F32", "[1099511627776, 1099511627776]", 0, 16), 16), "no readable tensor file"),
        (
            "dims that overflow to 0",
            file(&tensor("F32", "[4294967296, 4294967296]", 0, 0), 0),
            "no readable tensor file",
        ),
        ("dims over 64 bits", file(&tensor("F32", "[36893488147419103232]", 0, 16), 16), "no readable tensor file"),
        ("negative dims", file(&tensor("F32", "[-4]", 0, 16), 16), "no readable tensor file"),
        ("overlapping tensors", file(two, 12), "no readable tensor file"),
        ("a gap", file(&tensor("F32", "[2]", 4, 12), 12), "no readable tensor file"),
        ("offsets turned round", file(&tensor("F32", "[2]", 8, 0), 8), "no readable tensor file"),
        ("offsets of 64 bits", file(&tensor("F32", "[2]", 0, u64::MAX), 8), "no readable tensor file"),
        (
            "a tensor that stands twice",
            file(&[&tensor("F32", "[2]", 0, 8)[..53], ",", &tensor("F32", "[2]", 0, 8)[1..]].concat(), 8),
            "`a` stands twice",
        ),
        (
            "metadata that stand twice",
            file("{\"__metadata__\":{\"block_size\":\"4\",\"block_size\":\"8\"}}", 0),
            "`block_size` stands twice",
        ),
        ("offsets that overflow with the header", file(&overflowing(), 0), "no readable tensor file"),
        ("unknown type", file(&tensor("F33", "[2]", 0, 8), 8), "no readable tensor file"),
        ("length that is not the shape's", file(&tensor("F64", "[2]", 0, 8), 8), "no readable tensor file"),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes, message) in cases {
        let refused = one_line(TensorFile::parse(bytes.clone()).unwrap_err());
        assert!(refused.contains(message), "{name}: {refused}");
        let path = folder.path().join("hostile.safetensors");
        std::fs::write(&path, bytes).unwrap();
        let readers =
            [TensorFile::read(&path).map(drop), GoldenCase::read(&path).map(drop), Bundle::read(&path).map(drop)];
        for refused in readers.map(|outcome| one_line(outcome.unwrap_err())) {
            assert!(refused.contains("hostile.safetensors: ") && refused.contains(message), "{name}: {refused}");
        }
    }
}

#[test]
fn shapes_with_a_zero_beside_huge_numbers_take_no_memory() {
    let header =
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[0, 4611686018427387904, 4611686018427387904],\"data_offsets\":[0,0]}}";
    let refused = TensorFile::parse(file(header, 0)).unwrap().get_f64("a").unwrap_err();
    assert!(one_line(refused).contains("tensor `a` of 3 axes"));
}

#[test]
fn a_tensor_that_is_missing_or_of_another_type_is_named() {
    let header = "{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}";
    let mut bytes = file(header, 3);
    *bytes.last_mut().unwrap() = 2;
    let file = TensorFile::parse(bytes).unwrap();
    assert_eq!(file.get_f64("b").unwrap_err().to_string(), "has no tensor `b`");
    assert_eq!(file.get_f64("a").unwrap_err().to_string(), "tensor `a` is U8, expected F64, F32, F16 or BF16");
    assert_eq!(file.get_i64("a").unwrap_err().to_string(), "tensor `a` is U8, expected I64 or I32");
    assert_eq!(file.get_bool("a").unwrap_err().to_string(), "tensor `a`: value number 2 is 2, neither 0 nor 1");
}

#[test]
fn every_truncation_and_every_flipped_header_byte_of_a_real_file_is_survived() {
    let entry = nsa_corpus::entries().iter().find(|entry| entry.name == "edges/seq_1").unwrap();
    let whole = Bundle::new(entry.clone(), Dtype::F16, None).unwrap().to_bytes();
    for length in 0..whole.len() {
        one_line(Bundle::parse(whole[..length].to_vec()).unwrap_err());
    }
    let header = u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    for position in (0..8 + header).step_by(3) {
        let mut bytes = whole.clone();
        bytes[position] ^= 0x11;
        if let Err(error) = Bundle::parse(bytes) {
            one_line(error);
        }
    }
}

const ENTRY: &str =
    "[[entry]]\nname = \"a/b\"\nwhy = \"because\"\n[entry.case]\nseq_len = 4\ndim = 2\nblock_size = 2\nnum_sel = 1\n";

fn refused(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("entries.toml");
    std::fs::write(&path, text).unwrap();
    let error = one_line(read_entries(&path).unwrap_err());
    assert!(error.contains("entries.toml: "), "{error}");
    error.split("entries.toml: ").nth(1).unwrap().to_owned()
}

#[test]
fn a_bad_entry_is_refused_with_its_line_and_name() {
    let with = |find: &str, replace: &str| {
        assert!(ENTRY.contains(find));
        refused(&ENTRY.replace(find, replace))
    };
    assert_eq!(
        with("num_sel = 1", "num_sel = 1\nnum_slots = 2").split(", expected").next().unwrap(),
        "line 9: entry \"a/b\": unknown field `num_slots`"
    );
    assert_eq!(
        with("why =", "reason = 3\nwhy =").split(", expected").next().unwrap(),
        "line 3: entry \"a/b\": unknown field `reason`"
    );
    assert_eq!(with("dim = 2\n", ""), "line 4: entry \"a/b\": missing field `dim`");
    assert_eq!(with("dim = 2", "dim = -2"), "line 6: entry \"a/b\": invalid value: integer `-2`, expected usize");
    assert_eq!(with("dim = 2", "dim = 0"), "line 2: entry \"a/b\": dim is 0; only num_sel may be");
    assert_eq!(
        with("dim = 2", "dim = 2\nq_heads = 3\nkv_heads = 2"),
        "line 2: entry \"a/b\": q_heads 3 is not a multiple of kv_heads 2"
    );
    assert_eq!(with("a/b", "a b"), "line 2: entry \"a b\": a name is made of words like `edges/seq_1`");
    assert_eq!(with("because", " "), "line 2: entry \"a/b\": why and dtypes must not be empty");
    assert_eq!(
        with("why", "flags = [\"x\"]\nwhy"),
        "line 2: entry \"a/b\": flag `x` is no word, or has no line under [notes]"
    );
    assert_eq!(with("[[entry]]", "[notes]\nx = \"y\"\n[[entry]]"), "[notes] explains `x`, which no entry carries");
    assert_eq!(refused(&format!("{ENTRY}\n{ENTRY}")), "line 11: entry \"a/b\": the name stands twice");
    assert!(with("dim = 2", "dim = = 2").starts_with("line 6: entry \"a/b\": "));
    assert!(
        with("num_sel = 1", "num_sel = 1\nq = { kind = \"normal\", mean = 2.0 }")
            .starts_with("line 9: entry \"a/b\": unknown field `mean`")
    );
    assert!(
        with("num_sel = 1", "num_sel = 1\nq = { kind = \"gauss\" }")
            .starts_with("line 9: entry \"a/b\": unknown variant `gauss`")
    );
    assert!(
        with("num_sel = 1", "num_sel = 1\nmask = { kind = \"all\", slot = 2 }")
            .starts_with("line 9: entry \"a/b\": unknown field `slot`")
    );
    assert!(
        with("num_sel = 1", "num_sel = 1\nd_sliding = { kind = \"normal\" }")
            .contains("d_sliding is given, but there is no sliding window")
    );
    assert!(
        with("num_sel = 1", "num_sel = 1\nk = { kind = \"power_grid\", eighths = 9, lowest = 0, highest = 1 }")
            .contains("eighths is 9")
    );
    assert!(
        with("num_sel = 1", "num_sel = 1\nk = { kind = \"wide_exponents\", lowest = 0, highest = 9000 }")
            .contains("0..=9000")
    );
}

#[test]
fn a_hostile_entry_is_refused_before_anything_is_drawn() {
    let with = |lines: &str| refused(&format!("{ENTRY}{lines}\n"));
    assert!(with(&format!("overrides = {}", "[".repeat(100_000))).starts_with("line 9: entry \"a/b\": "));
    assert!(with(&format!("q = {}", "{ a = ".repeat(100_000))).starts_with("line 9: entry \"a/b\": "));
    assert!(with("batch = 9223372036854775807").contains("numbers, more than 536870912"));
    assert!(with("batch = 18446744073709551616").starts_with("line 9: entry \"a/b\": "));
    assert!(with("batch = 5000000").contains("batch 5000000, q_heads 1, "));
    assert!(with("batch = 5000000").contains("numbers, more than 536870912"));
    for (size, hostile) in [("block_size = 2", "block_size = 4000000000000"), ("num_sel = 1", "num_sel = 4000000000")] {
        let refused = refused(&ENTRY.replace(size, hostile));
        assert!(refused.contains(&hostile.replace(" = ", " ")) && refused.contains("numbers, more than"), "{refused}");
    }
    // Found by attack: a block of 2^28 keys for one token asked for 69 GB.
    let attack = ENTRY.replace("dim = 2", "dim = 64").replace("block_size = 2", "block_size = 268435456");
    assert!(refused(&attack).contains("numbers, more than"));
    assert!(refused(&"#".repeat(5 << 20)).contains("has more than 4194304 bytes"));
}

#[test]
fn an_override_that_changes_nothing_there_is_refused() {
    let with = |change: &str| refused(&format!("{ENTRY}overrides = [{{ {change} }}]\n"));
    assert!(
        with("tensor = \"q\", index = [0, 0, 4, 0], value = 1.0")
            .contains("override of q[0, 0, 4, 0]: outside its shape [1, 1, 4, 2]")
    );
    assert!(with("tensor = \"q\", index = [0, 0], value = 1.0").contains("outside its shape"));
    assert!(with("tensor = \"d_lse\", index = [0, 0, 0], value = 1.0").contains("the case has no such tensor"));
    assert!(with("tensor = \"indices\", index = [0, 0, 0, 0], value = 2.0").contains("outside 0..2"));
    assert!(with("tensor = \"indices\", index = [0, 0, 0, 0], value = nan").contains("is no value of this tensor"));
    assert!(with("tensor = \"mask\", index = [0, 0, 0, 0], value = 0.5").contains("is no value of this tensor"));
    assert!(with("tensor = \"out\", index = [0], value = 0.5").contains("unknown variant `out`"));
}

/// A folder with `inside/values.safetensors`, and an entry in `inside` whose q is a tensor of `file`.
fn read_given(file: &str) -> (tempfile::TempDir, Result<Vec<nsa_corpus::Entry>, nsa_corpus::Error>) {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    let mut tensors = nsa_corpus::TensorFileBuilder::new();
    tensors.float("q", Dtype::F32, &ndarray::Array4::from_elem([1, 1, 4, 2], 0.25));
    tensors.float("wide", Dtype::F32, &ndarray::Array4::from_elem([1, 1, 16, 2], 0.25));
    tensors.write(inside.join("values.safetensors")).unwrap();
    tensors.write(folder.path().join("outside.safetensors")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("../outside.safetensors", inside.join("link.safetensors")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("..", inside.join("up")).unwrap();
    let text = format!("{ENTRY}q = {{ kind = \"given\", file = {file:?}, tensor = \"q\" }}\n");
    std::fs::write(inside.join("entries.toml"), text).unwrap();
    let entries = read_entries(inside.join("entries.toml"));
    (folder, entries)
}

#[test]
fn a_tensor_of_a_file_beside_the_entry_is_read() {
    let (_folder, entries) = read_given("values.safetensors");
    let inputs = entries.unwrap()[0].case.materialize(Dtype::F64).unwrap();
    assert!(inputs.q().iter().all(|value| *value == 0.25));
}

#[test]
fn a_path_that_leaves_the_folder_is_refused() {
    for file in [
        "../outside.safetensors",
        "a/../../outside.safetensors",
        "/etc/passwd",
        "",
        ".",
        "a//b",
        "./values.safetensors",
        "C:\\values",
        "a\\..\\b",
        "self",
    ] {
        let refused = one_line(read_given(file).1.unwrap_err());
        assert!(refused.contains("entries.toml: line 2: entry \"a/b\": file = "), "{file}: {refused}");
    }
}

#[cfg(unix)]
#[test]
fn a_symbolic_link_is_not_followed() {
    for file in ["link.safetensors", "up/outside.safetensors", "up/inside/values.safetensors"] {
        let (_folder, entries) = read_given(file);
        let refused = one_line(entries.unwrap()[0].case.materialize(Dtype::F32).unwrap_err());
        assert!(refused.contains("is a symbolic link, which a case may not follow"), "{refused}");
    }
}

#[test]
fn what_is_no_regular_file_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    assert!(one_line(TensorFile::read(folder.path()).unwrap_err()).ends_with("is no regular file"));
    assert!(one_line(read_entries(folder.path()).unwrap_err()).ends_with("is no regular file"));
    assert!(one_line(TensorFile::read(folder.path().join("none")).unwrap_err()).contains("cannot be read: "));
    if Path::new("/dev/zero").exists() {
        assert!(one_line(TensorFile::read("/dev/zero").unwrap_err()).ends_with("is no regular file"));
    }
}

#[test]
fn a_given_tensor_smaller_than_the_case_is_refused_with_both_shapes() {
    let (_folder, entries) = read_given("values.safetensors");
    let mut case: Case = entries.unwrap().remove(0).case;
    case.sizes.seq_len = 5;
    let refused = one_line(case.materialize(Dtype::F32).unwrap_err());
    assert!(refused.contains("has shape [1, 1, 4, 2], the case needs [1, 1, 5, 2]"), "{refused}");
}

#[test]
fn a_file_is_written_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none/here.safetensors");
    let refused = one_line(nsa_corpus::TensorFileBuilder::new().write(&path).unwrap_err());
    assert!(refused.contains("here.safetensors: cannot be written: "), "{refused}");
}

#[test]
fn a_limit_of_its_own_names_both_numbers() {
    let sizes = Sizes {
        batch: 1,
        q_heads: 2,
        kv_heads: 1,
        seq_len: 9,
        dim: 4,
        value_dim: 4,
        block_size: 4,
        num_sel: 2,
        sel_heads: 1,
    };
    let case = Case::ordinary(sizes, 1);
    let takes = 2 * 9 * 27 + 9 * 2 * 4 + 12 * 66 + 2 * 4 * 3 * 32;
    let limit = Limit::of(takes);
    assert_eq!(case.materialize_up_to(Dtype::F32, limit).unwrap(), case.materialize(Dtype::F32).unwrap());
    let message = case.materialize_up_to(Dtype::F32, Limit::of(takes - 1)).unwrap_err().to_string();
    assert!(message.contains("seq_len 9") && message.contains(&format!("take {takes} numbers")), "{message}");
    assert!(message.ends_with(&format!("more than {}", takes - 1)), "{message}");
}

#[test]
fn given_tensors_are_counted_together_before_any_is_read() {
    let (folder, _) = read_given("values.safetensors");
    let path = folder.path().join("inside/entries.toml");
    std::fs::write(
        &path,
        format!("{ENTRY}q = {{ kind = \"given\", file = \"values.safetensors\", tensor = \"wide\" }}\n"),
    )
    .unwrap();
    let mut case = read_entries(&path).unwrap().remove(0).case;
    case.sizes = Sizes { seq_len: 1, dim: 1, value_dim: 1, block_size: 1, num_sel: 0, ..case.sizes };
    (case.k, case.v) = (case.q.clone(), case.q.clone());
    // One token of one feature: the case takes 59 numbers, the three given tensors hold 3 x 32.
    let refused = one_line(case.materialize_up_to(Dtype::F32, Limit::of(95)).unwrap_err());
    assert_eq!(refused, "the given tensors hold 96 numbers, more than 95");
    assert!(case.materialize_up_to(Dtype::F32, Limit::of(96)).is_ok());
}

#[test]
fn of_a_sparse_file_the_header_alone_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse.safetensors");
    let write = |numbers: u64| {
        let header = format!(
            "{{\"__metadata__\":{{\"block_size\":\"4\"}},\"q\":{{\"dtype\":\"F32\",\"shape\":[1,1,{numbers},1],\"data_offsets\":[0,{}]}}}}",
            4 * numbers
        );
        let bytes = file(&header, 0);
        let sparse = std::fs::File::create(&path).unwrap();
        std::io::Write::write_all(&mut &sparse, &bytes).unwrap();
        sparse.set_len(bytes.len() as u64 + 4 * numbers).unwrap();
    };
    // 7 GiB that take no room on a disk, and would in memory.
    write(7 << 28);
    let refused = one_line(TensorFile::read(&path).unwrap_err());
    assert!(refused.ends_with("its tensors hold 1879048192 numbers, more than 536870912"), "{refused}");
    write(1 << 28);
    assert_eq!(TensorFile::read(&path).unwrap().shape("q").unwrap(), [1, 1, 1 << 28, 1]);
    assert!(one_line(GoldenCase::read(&path).unwrap_err()).ends_with("has no tensor `k`"));
}

#[test]
fn a_file_that_changes_after_its_header_was_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shrinks.safetensors");
    std::fs::write(&path, file("{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 16)).unwrap();
    let read = TensorFile::read(&path).unwrap();
    assert_eq!(read.get_f64("a").unwrap().len(), 4);
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(70).unwrap();
    assert!(one_line(read.get_f64("a").unwrap_err()).starts_with("cannot be read: "));
}

#[test]
fn text_of_a_file_ends_no_line_of_a_message_and_does_not_flood_it() {
    let bundle = |dtype: &str| {
        let dtype = serde_json::Value::from(dtype);
        one_line(
            Bundle::parse(file(&format!("{{\"__metadata__\":{{\"element\":{dtype},\"entry\":\"\"}}}}"), 0))
                .unwrap_err(),
        )
    };
    let refused = bundle("f16\nnsa-diff: all 568 cases passed");
    assert_eq!(refused, r"dtype `f16\nnsa-diff: all 568 cases passed` is none of f64, f32, f16, bf16");
    assert!(bundle(&"x".repeat(4_000_000)).len() < 200);
    let long_name = ENTRY.replace("a/b", &"n ".repeat(1 << 20));
    assert!(refused_by_reader(&long_name).ends_with("a name has 2097152 bytes, more than 240"));
    assert!(!refused_by_reader(&ENTRY.replace("a/b", "a\\u001b[2J")).contains('\u{1b}'));
}

fn refused_by_reader(text: &str) -> String {
    one_line(nsa_corpus::parse_entries(text).unwrap_err())
}
