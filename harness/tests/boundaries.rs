//! Each size at which a kernel takes another path (gpu/boundaries.toml) has entries just below and just above it. The sizes are
//! read off the kernels' and the launcher's own text, the entries' sides are computed from their cases.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use nsa_corpus::{Case, Dtype, Inputs, Shape, entries};
use nsa_gpu::{Rung, Variant};
use nsa_harness::relations;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    boundary: Vec<Boundary>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Boundary {
    name: String,
    meaning: String,
    file: Option<String>,
    text: Option<String>,
    value: Option<usize>,
    #[serde(default = "one")]
    times: usize,
    quantity: Quantity,
    #[serde(default)]
    with: BTreeMap<Quantity, usize>,
    rung: Option<Rung>,
    #[serde(default)]
    refused: bool,
    below: Vec<String>,
    above: Vec<String>,
}

fn one() -> usize {
    1
}

/// What a case brings to a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Quantity {
    /// Visits of the most visited block of one selection, times the query heads that share it.
    QueryRowsOnABlock,
    /// Slots of all tokens of one selection head.
    Visits,
    /// Blocks times chunks of visits of one selection head, were there no limit to them.
    Cells,
    /// Chunks of every selection head and batch entry.
    ChunksOfAllLists,
    Blocks,
    /// One more than the largest number of a block that a live slot selects.
    SelectedBlocks,
    Slots,
    BlockSize,
    /// Keys that a window reaches at most; 0 without one.
    WindowKeys,
    /// Rows of all query heads and batch entries.
    Rows,
    /// Rows of all selection heads and batch entries.
    Selections,
    HeadsOfASelection,
    KvHeads,
    SelHeads,
    Dim,
    ValueDim,
    /// dim + value_dim.
    FeaturesTogether,
    /// Steps of 32 features, of keys and of values.
    #[serde(rename = "steps_of_32_features")]
    StepsOf32Features,
    /// Rows whose first span of keys has only scores that are -inf in f32, and that have other keys after it.
    RowsThatBeginAtMinusInfinity,
}

impl Quantity {
    fn of(self, case: &Case, chunk_visits: usize) -> usize {
        let shape = case.shape().unwrap();
        let visits = shape.seq_len() * shape.num_sel();
        let chunks = visits.div_ceil(chunk_visits);
        let inputs = || case.materialize(Dtype::F32).unwrap();
        match self {
            Quantity::QueryRowsOnABlock => most_visits(&inputs()) * shape.sel_groups(),
            Quantity::Visits => visits,
            Quantity::Cells => shape.blocks() * chunks,
            Quantity::ChunksOfAllLists => shape.batch() * shape.sel_heads() * chunks,
            Quantity::Blocks => shape.blocks(),
            Quantity::SelectedBlocks => live_blocks(&inputs()).map(|(_, block)| block + 1).max().unwrap_or(0),
            Quantity::Slots => shape.num_sel(),
            Quantity::BlockSize => shape.block_size(),
            Quantity::WindowKeys => case.sliding_window.map_or(0, |window| (window + 1).min(shape.seq_len())),
            Quantity::Rows => shape.batch() * shape.q_heads() * shape.seq_len(),
            Quantity::Selections => shape.batch() * shape.sel_heads() * shape.seq_len(),
            Quantity::HeadsOfASelection => shape.sel_groups(),
            Quantity::KvHeads => shape.kv_heads(),
            Quantity::SelHeads => shape.sel_heads(),
            Quantity::Dim => shape.dim(),
            Quantity::ValueDim => shape.value_dim(),
            Quantity::FeaturesTogether => shape.dim() + shape.value_dim(),
            Quantity::StepsOf32Features => shape.dim().div_ceil(32) + shape.value_dim().div_ceil(32),
            Quantity::RowsThatBeginAtMinusInfinity => rows_at_minus_infinity(&inputs()),
        }
    }
}

/// Every live slot: its `[b, sel_head]`, and the block.
fn live_blocks(inputs: &Inputs) -> impl Iterator<Item = ([usize; 2], usize)> {
    let slots = inputs.indices().indexed_iter().zip(inputs.mask());
    slots.filter(|(_, live)| **live).map(|(((b, h, _, _), block), _)| ([b, h], *block as usize))
}

fn most_visits(inputs: &Inputs) -> usize {
    let mut visits: BTreeMap<([usize; 2], usize), usize> = BTreeMap::new();
    live_blocks(inputs).for_each(|visit| *visits.entry(visit).or_default() += 1);
    visits.into_values().max().unwrap_or(0)
}

fn rows_at_minus_infinity(inputs: &Inputs) -> usize {
    let shape = inputs.shape();
    let heads = (0..shape.batch()).flat_map(|b| (0..shape.q_heads()).map(move |head| (b, head)));
    let rows = heads.flat_map(|(b, head)| (0..shape.seq_len()).map(move |i| [b, head, i]));
    rows.filter(|row| begins_at_minus_infinity(inputs, shape, *row)).count()
}

fn begins_at_minus_infinity(inputs: &Inputs, shape: &Shape, [b, head, i]: [usize; 3]) -> bool {
    let sel_head = head / shape.sel_groups();
    let score = |token: usize, factor: f32| {
        let key = (token < shape.seq_len()).then_some([b, head / shape.groups(), token]);
        let product = |d: usize| key.map_or(0.0, |[b, h, j]| inputs.q()[[b, head, i, d]] * inputs.k()[[b, h, j, d]]);
        (0..shape.dim()).map(product).sum::<f64>() as f32 * factor * shape.scale() as f32 * std::f32::consts::LOG2_E
    };
    let slots = (0..shape.num_sel()).filter(|s| inputs.mask()[[b, sel_head, i, *s]]).map(|s| {
        let factor = inputs.sel_scale().map_or(1.0, |scale| scale[[b, sel_head, i, s]]);
        let first = inputs.indices()[[b, sel_head, i, s]] as usize * shape.block_size();
        (first..first + shape.block_size()).map(|token| score(token, factor as f32)).collect::<Vec<_>>()
    });
    let first = i / shape.block_size() * shape.block_size();
    let diagonal = inputs.include_block_causal().then(|| (first..=i).map(|token| score(token, 1.0)).collect());
    let mut spans = diagonal.into_iter().chain(slots);
    let lowest = |span: Vec<f32>| span.iter().all(|score| *score == f32::NEG_INFINITY);
    spans.next().is_some_and(lowest) && spans.next().is_some()
}

fn gpu() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("gpu")
}

fn table() -> Vec<Boundary> {
    let text = std::fs::read_to_string(gpu().join("boundaries.toml")).unwrap();
    toml::from_str::<Table>(&text).unwrap().boundary
}

/// The text of the file of this name, wherever it lies below `folder`.
fn file(folder: &Path, name: &str) -> Option<String> {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            if let Some(text) = file(&entry, name) {
                return Some(text);
            }
        } else if entry.file_name().is_some_and(|found| found == name) {
            return Some(std::fs::read_to_string(entry).unwrap());
        }
    }
    None
}

/// The number that stands in `text` in the place of `{}` of `pattern`, which must fit once; `1 << 22` is a number. Without a
/// `{}` the pattern itself must stand there once: 0.
fn number(text: &str, pattern: &str) -> Result<usize, String> {
    let Some((before, after)) = pattern.split_once("{}") else {
        let count = text.matches(pattern).count();
        return if count == 1 { Ok(0) } else { Err(format!("`{pattern}` occurs {count} times")) };
    };
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let fits = text.match_indices(before).filter_map(|(at, _)| {
        let rest = &text[at + before.len()..];
        let mut end = digits(rest);
        if let Some(bits) = rest[end..].strip_prefix(" << ") {
            end = rest.len() - bits.len() + digits(bits);
        }
        rest[end..].starts_with(after).then_some(&rest[..end])
    });
    let found: Vec<&str> = fits.collect();
    let [found] = found[..] else { return Err(format!("`{pattern}` fits {} times", found.len())) };
    let parse = |digits: &str| digits.parse::<usize>().map_err(|error| format!("`{found}`: {error}"));
    match found.split_once(" << ") {
        Some((one, bits)) => Ok(parse(one)? << parse(bits)?),
        None => parse(found),
    }
}

impl Boundary {
    fn size(&self) -> usize {
        let name = &self.name;
        match (&self.file, &self.text, self.value) {
            (Some(file_name), Some(pattern), None) => {
                let text = file(&gpu(), file_name).unwrap_or_else(|| panic!("{name}: no {file_name} below gpu"));
                number(&text, pattern).unwrap_or_else(|problem| panic!("{name}: {file_name}: {problem}")) * self.times
            }
            (None, None, Some(value)) => value,
            _ => panic!("{name}: `file` and `text`, or `value`"),
        }
    }

    /// What is wrong with the entry of this name on this side, if anything.
    fn problem(&self, name: &str, above: bool, size: usize, chunk_visits: usize) -> Option<String> {
        let Some((case, elements)) = find(name) else { return Some("there is no such entry".to_owned()) };
        let found = self.quantity.of(&case, chunk_visits);
        let near = if size == 0 { usize::MAX } else { (size / 4).max(1) };
        if (found > size) != above || found.abs_diff(size) > near {
            return Some(format!("{:?} is {found}, the size {size}", self.quantity));
        }
        for (quantity, least) in &self.with {
            let found = quantity.of(&case, chunk_visits);
            if found < *least {
                return Some(format!("{quantity:?} is {found}, not {least} or more"));
            }
        }
        if case.d_out.is_none() || case.sliding_window.is_some() && case.d_sliding.is_none() {
            return Some("a cotangent is missing, so that a backward does less than it could".to_owned());
        }
        let taken = |rung| {
            let supports = |dtype| Variant::uniform(rung).supports(&case.shape().unwrap(), dtype, "sm_90a").is_ok();
            elements.iter().any(|dtype| supports(*dtype))
        };
        let wanted = !(above && self.refused);
        self.rung.filter(|rung| taken(*rung) != wanted).map(|rung| format!("{rung} takes it: {}", !wanted))
    }
}

/// An entry, or a large case, by its name.
fn find(name: &str) -> Option<(Case, Vec<Dtype>)> {
    let entry =
        entries().iter().find(|entry| entry.name == name).map(|entry| (entry.case.clone(), entry.dtypes.clone()));
    let large = || relations::cases().into_iter().find(|large| large.name == name);
    entry.or_else(|| large().map(|large| (large.case, vec![Dtype::F32, Dtype::Bf16])))
}

fn chunk_visits(table: &[Boundary]) -> usize {
    table.iter().find(|boundary| boundary.name == "chunk").expect("the table has it").size()
}

#[test]
fn every_size_at_which_a_kernel_changes_its_path_has_entries_on_both_sides() {
    let table = table();
    let chunk_visits = chunk_visits(&table);
    let mut problems = Vec::new();
    for boundary in &table {
        let size = boundary.size();
        assert!(boundary.meaning.ends_with('.') && !boundary.below.is_empty() && !boundary.above.is_empty());
        for (names, above) in [(&boundary.below, false), (&boundary.above, true)] {
            for name in names {
                let problem = boundary.problem(name, above, size, chunk_visits);
                let side = if above { "above" } else { "below" };
                problems.extend(problem.map(|problem| format!("{}, {name} {side}: {problem}", boundary.name)));
            }
        }
    }
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    let names: BTreeSet<&str> = table.iter().map(|boundary| boundary.name.as_str()).collect();
    assert_eq!(names.len(), table.len(), "a name stands twice");
}

#[test]
fn every_entry_about_a_boundary_stands_in_the_table() {
    let table = table();
    let used: BTreeSet<&str> =
        table.iter().flat_map(|boundary| boundary.below.iter().chain(&boundary.above)).map(String::as_str).collect();
    let own = entries().iter().map(|entry| entry.name.as_str()).filter(|name| name.starts_with("boundaries/"));
    let unused: Vec<&str> = own.filter(|name| !used.contains(name)).collect();
    assert!(unused.is_empty(), "{unused:?}");
}

#[test]
fn a_deleted_entry_a_changed_size_and_a_changed_case_are_noticed() {
    let table = table();
    let chunk_visits = chunk_visits(&table);
    let boundary = table.iter().find(|boundary| boundary.name == "segment").unwrap();
    let problem = |name: &str, above, size| boundary.problem(name, above, size, chunk_visits);
    assert_eq!(boundary.size(), 8192);
    let [below, above] = ["boundaries/segment_full", "boundaries/segment_and_a_token"];
    assert_eq!((problem(below, false, 8192), problem(above, true, 8192)), (None, None));
    assert!(problem("boundaries/gone", true, 8192).unwrap().contains("no such entry"));
    assert!(problem(above, true, 4096).is_some() && problem(below, false, 16384).is_some());
    assert!(problem(below, true, 8192).is_some() && problem(above, false, 8192).is_some());
    assert_eq!(number("const A: usize = 1 << 4;", "const A: usize = {};"), Ok(16));
    assert_eq!(number("a 7 b, a 8 c", "a {} c"), Ok(8));
    assert!(number("a 7 b, a 8 b", "a {} b").is_err() && number("a x b", "a {} b").is_err());
}
