//! The terms of a row: which keys it attends to, with which factor, read from where. Every fault about masks, indices,
//! tails and heads acts here and nowhere else.

use nsa_corpus::Inputs;

use super::mutation::{
    Act, BlockIs, FactorFrom, HeadFrom, HeadIs, KeyIs, Mutation, PartIs, Pass, ReadFrom, SelectionPart, SlotIs,
    TokenIs, When,
};

/// A query row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub b: usize,
    pub q_head: usize,
    pub i: usize,
}

/// One term of a row's softmax.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Term {
    /// Terms of one tile follow each other; the running softmax goes on tile by tile.
    pub tile: usize,
    pub part: PartIs,
    pub slot: Option<usize>,
    /// The token that is meant; beyond the sequence's end for padding.
    pub token: usize,
    /// The row of k that is read; `None` reads zeros.
    pub key: Option<usize>,
    /// The row of v that is read.
    pub value: Option<usize>,
    pub factor: f64,
    /// An unscaled score in place of the product.
    pub score: Option<f64>,
    pub count: usize,
}

/// A term that a fault adds, removes or changes in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Touched {
    /// The selection slot, for a slot's term.
    pub slot: Option<usize>,
    /// The token; at or beyond the sequence's length for padding.
    pub token: usize,
}

/// A slot as it is read.
struct Slot {
    number: usize,
    block: usize,
    live: bool,
    factor: f64,
    repeated: bool,
}

/// Lists terms for one pass.
#[derive(Clone, Copy)]
pub(super) struct Lister<'a> {
    pub inputs: &'a Inputs,
    pub mutation: Option<&'a Mutation>,
    /// Forward or backward.
    pub pass: Pass,
}

/// One candidate term, before it is decided whether it takes part.
struct Candidate<'a> {
    row: Row,
    part: PartIs,
    slot: Option<&'a Slot>,
    token: usize,
    window: usize,
    live: bool,
    tile: usize,
}

impl Lister<'_> {
    /// The diagonal, then the slots in order.
    pub(super) fn selected(&self, row: Row, terms: &mut Vec<Term>) {
        let shape = self.inputs.shape();
        let block_size = shape.block_size();
        terms.clear();
        let start = row.i / block_size * block_size;
        for token in start..start + block_size {
            let live = self.inputs.include_block_causal() && token <= row.i;
            let part = PartIs::Diagonal;
            self.add(Candidate { row, part, slot: None, token, window: 0, live, tile: 0 }, terms);
        }
        for (at, slot) in self.slots(row).iter().enumerate() {
            let start = slot.block * block_size;
            for token in start..start + block_size {
                let (part, live) = (PartIs::Slot, slot.live);
                let candidate = Candidate { row, part, slot: Some(slot), token, window: 0, live, tile: at + 1 };
                self.add(candidate, terms);
            }
        }
    }

    /// The window, with what lies just outside of it.
    pub(super) fn sliding(&self, row: Row, window: usize, terms: &mut Vec<Term>) {
        let n = self.inputs.shape().seq_len();
        let block_size = self.inputs.shape().block_size();
        terms.clear();
        let first = row.i.saturating_sub(window.saturating_add(2));
        for token in first..(row.i + 2).min(n) {
            let live = token <= row.i && row.i - token <= window;
            let (part, tile) = (PartIs::Sliding, token / block_size);
            self.add(Candidate { row, part, slot: None, token, window, live, tile }, terms);
        }
    }

    fn slots(&self, row: Row) -> Vec<Slot> {
        let shape = self.inputs.shape();
        let mut slots: Vec<Slot> = Vec::with_capacity(shape.num_sel());
        for number in 0..shape.num_sel() {
            let at = |part| self.read_at(part, row, number);
            let mut block = self.inputs.indices()[at(SelectionPart::Index)] as usize;
            if let Some(Mutation::Selection { of: SelectionPart::Index, from, pass }) = self.mutation
                && self.in_pass(*pass)
            {
                block = match from {
                    ReadFrom::PlusOne => (block + 1).min(shape.blocks() - 1),
                    ReadFrom::LowByte => block & 0xff,
                    _ => block,
                };
            }
            let live = self.inputs.mask()[at(SelectionPart::Mask)];
            let factor = self.inputs.sel_scale().map_or(1.0, |scales| scales[at(SelectionPart::SelScale)]);
            let repeated = slots.iter().any(|earlier| earlier.live && earlier.block == block);
            slots.push(Slot { number, block, live, factor, repeated });
        }
        slots
    }

    /// Where `part` of slot `s` is read for `row`.
    fn read_at(&self, part: SelectionPart, row: Row, s: usize) -> [usize; 4] {
        let shape = self.inputs.shape();
        let head = row.q_head / shape.sel_groups();
        let right = [row.b, head, row.i, s];
        let Some(Mutation::Selection { of, from, pass }) = self.mutation else { return right };
        if *of != part || !self.in_pass(*pass) {
            return right;
        }
        match from {
            ReadFrom::HeadZero => [row.b, 0, row.i, s],
            ReadFrom::NextHead => [row.b, (head + 1) % shape.sel_heads(), row.i, s],
            ReadFrom::BatchZero => [0, head, row.i, s],
            ReadFrom::PreviousToken => [row.b, head, row.i.saturating_sub(1), s],
            ReadFrom::BlockStart => [row.b, head, row.i / shape.block_size() * shape.block_size(), s],
            ReadFrom::NextSlot => [row.b, head, row.i, (s + 1) % shape.num_sel()],
            ReadFrom::FirstSlot => [row.b, head, row.i, 0],
            ReadFrom::PlusOne | ReadFrom::LowByte => right,
        }
    }

    fn in_pass(&self, pass: Pass) -> bool {
        pass == Pass::Both || pass == self.pass
    }

    fn add(&self, candidate: Candidate<'_>, terms: &mut Vec<Term>) {
        let mut live = candidate.live;
        let mut term = self.term(&candidate);
        if let Some(Mutation::Terms { pass, when, act }) = self.mutation
            && self.in_pass(*pass)
            && self.holds(when, &candidate)
        {
            let adds = matches!(act, Act::Include | Act::IncludeWithScore(_));
            if adds != live {
                self.act(*act, &candidate, &mut term);
                live = *act != Act::Drop;
            }
        }
        if live {
            terms.push(term);
        }
    }

    fn term(&self, candidate: &Candidate<'_>) -> Term {
        let shape = self.inputs.shape();
        let head = candidate.row.b * shape.kv_heads() + candidate.row.q_head / shape.groups();
        let token = candidate.token;
        let read = (token < shape.seq_len()).then(|| head * shape.seq_len() + token);
        Term {
            tile: candidate.tile,
            part: candidate.part,
            slot: candidate.slot.map(|slot| slot.number),
            token,
            key: read,
            value: read,
            factor: candidate.slot.map_or(1.0, |slot| slot.factor),
            score: None,
            count: 1,
        }
    }

    fn act(&self, act: Act, candidate: &Candidate<'_>, term: &mut Term) {
        let shape = self.inputs.shape();
        let n = shape.seq_len();
        let shifted = |read: Option<usize>, by: isize| {
            let token = candidate.token.saturating_add_signed(by).min(n - 1);
            read.map(|read| read - candidate.token + token)
        };
        let in_head = |read: Option<usize>, from| read.map(|_| self.head(from, candidate.row) * n + candidate.token);
        match act {
            Act::Drop | Act::Include => {}
            Act::IncludeWithScore(score) => term.score = Some(score),
            Act::Double => term.count = 2,
            Act::Shift(by) => (term.key, term.value) = (shifted(term.key, by), shifted(term.value, by)),
            Act::ShiftKey(by) => term.key = shifted(term.key, by),
            Act::ShiftValue(by) => term.value = shifted(term.value, by),
            Act::KvHead(from) => (term.key, term.value) = (in_head(term.key, from), in_head(term.value, from)),
            Act::KeyHead(from) => term.key = in_head(term.key, from),
            Act::ValueHead(from) => term.value = in_head(term.value, from),
            Act::Factor(from) => term.factor = factor(from, term.factor),
            Act::ZeroValue => term.value = None,
            Act::ReadBeyond => {
                let head = candidate.row.b * shape.kv_heads() + candidate.row.q_head / shape.groups();
                let read = head * n + candidate.token;
                let read = (read < shape.batch() * shape.kv_heads() * n).then_some(read);
                (term.key, term.value) = (read, read);
            }
        }
    }

    /// The (batch, kv head) that is read, counted over both.
    fn head(&self, from: HeadFrom, row: Row) -> usize {
        let shape = self.inputs.shape();
        let (kv_heads, right) = (shape.kv_heads(), row.q_head / shape.groups());
        match from {
            HeadFrom::Modulo => row.b * kv_heads + row.q_head % kv_heads,
            HeadFrom::Zero => row.b * kv_heads,
            HeadFrom::Next => row.b * kv_heads + (right + 1) % kv_heads,
            HeadFrom::BatchZero => right,
        }
    }

    fn holds(&self, when: &When, candidate: &Candidate<'_>) -> bool {
        when.part.is_none_or(|part| part == candidate.part)
            && when.key.is_none_or(|key| self.key_is(key, candidate))
            && when.block.is_none_or(|block| self.block_is(block, candidate))
            && when.slot.is_none_or(|slot| candidate.slot.is_some_and(|given| self.slot_is(slot, given)))
            && when.token.is_none_or(|token| self.token_is(token, candidate.row))
            && when.head.is_none_or(|head| self.head_is(head, candidate.row))
    }

    fn key_is(&self, key: KeyIs, candidate: &Candidate<'_>) -> bool {
        let (token, i, window) = (candidate.token, candidate.row.i, candidate.window);
        let block_size = self.inputs.shape().block_size();
        match key {
            KeyIs::Own => token == i,
            KeyIs::Next => token == i + 1,
            KeyIs::Future => token > i,
            KeyIs::NotFuture => token <= i,
            KeyIs::First => token.is_multiple_of(block_size),
            KeyIs::Last => token % block_size == block_size - 1,
            KeyIs::Padded => token >= self.inputs.shape().seq_len(),
            KeyIs::WindowEdge => i.checked_sub(token) == Some(window),
            KeyIs::BeyondWindow => i.checked_sub(token) == Some(window + 1),
            KeyIs::From32 => token % block_size >= 32,
            KeyIs::From64 => token % block_size >= 64,
            KeyIs::From256 => token % block_size >= 256,
            KeyIs::Far256 => token + 256 <= i,
        }
    }

    fn block_is(&self, block: BlockIs, candidate: &Candidate<'_>) -> bool {
        let shape = self.inputs.shape();
        let (here, own) = (candidate.token / shape.block_size(), candidate.row.i / shape.block_size());
        let last = shape.blocks() - 1;
        match block {
            BlockIs::Own => here == own,
            BlockIs::Future => here > own,
            BlockIs::First => here == 0,
            BlockIs::Last => here == last,
            BlockIs::Partial => here == last && !shape.seq_len().is_multiple_of(shape.block_size()),
            BlockIs::Repeated => candidate.slot.is_some_and(|slot| slot.repeated),
            BlockIs::From1024 => here >= 1024,
        }
    }

    fn slot_is(&self, slot: SlotIs, given: &Slot) -> bool {
        match slot {
            SlotIs::First => given.number == 0,
            SlotIs::Last => given.number + 1 == self.inputs.shape().num_sel(),
            SlotIs::Masked => !given.live,
            SlotIs::Odd => given.number % 2 == 1,
            SlotIs::From4 => given.number >= 4,
            SlotIs::From16 => given.number >= 16,
            SlotIs::From256 => given.number >= 256,
            SlotIs::NegativeFactor => given.factor < 0.0,
            SlotIs::ZeroFactor => given.factor == 0.0,
        }
    }

    fn token_is(&self, token: TokenIs, row: Row) -> bool {
        let shape = self.inputs.shape();
        let (n, block_size) = (shape.seq_len(), shape.block_size());
        match token {
            TokenIs::First => row.i == 0,
            TokenIs::Last => row.i == n - 1,
            TokenIs::VeryLast => row.i == n - 1 && row.b == shape.batch() - 1,
            TokenIs::InPartialBlock => row.i >= n / block_size * block_size,
            TokenIs::FirstOfBlock => row.i.is_multiple_of(block_size),
            TokenIs::LastOfBlock => row.i % block_size == block_size - 1,
            TokenIs::From16 => row.i >= 16,
            TokenIs::BeyondTiles => row.i >= n / 16 * 16,
        }
    }

    fn head_is(&self, head: HeadIs, row: Row) -> bool {
        let groups = self.inputs.shape().groups();
        match head {
            HeadIs::NotFirstOfGroup => !row.q_head.is_multiple_of(groups),
            HeadIs::LastOfGroup => groups > 1 && row.q_head % groups == groups - 1,
            HeadIs::NotFirstKvHead => row.q_head / groups > 0,
            HeadIs::NotFirstBatch => row.b > 0,
            HeadIs::From8OfGroup => row.q_head % groups >= 8,
            HeadIs::From16OfGroup => row.q_head % groups >= 16,
        }
    }
}

fn factor(from: FactorFrom, given: f64) -> f64 {
    match from {
        FactorFrom::One => 1.0,
        FactorFrom::Magnitude => given.abs(),
        FactorFrom::Square => given * given,
        FactorFrom::Positive => given.max(0.0),
    }
}
