//! What can be wrong with the plain implementation, as data: each fault is one value, read from a file.

use nsa_corpus::Dtype;
use serde::{Deserialize, Serialize};

/// One mistake.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case", deny_unknown_fields)]
pub enum Mutation {
    /// Which terms a row sums over, and where their keys and values are read.
    Terms {
        /// In which pass.
        #[serde(default)]
        pass: Pass,
        /// Which terms, of those that a row attends to and those near by that it does not.
        #[serde(default)]
        when: When,
        /// What happens to them.
        act: Act,
    },
    /// Where a row reads its selection.
    Selection {
        /// What is read from the wrong place.
        of: SelectionPart,
        /// Which place.
        from: ReadFrom,
        /// In which pass.
        #[serde(default)]
        pass: Pass,
    },
    /// How numbers are computed and stored.
    Numbers {
        /// What is done instead.
        change: Numbers,
    },
    /// The formulas of the backward.
    Gradient {
        /// What is done instead.
        change: Gradient,
    },
}

/// The pass that a fault is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    /// Both agree on the mistake.
    #[default]
    Both,
    /// The forward alone.
    Forward,
    /// The backward alone: the forward is right.
    Backward,
}

/// Which terms a fault is about: all conditions that are given must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// Of which part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<PartIs>,
    /// Which keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyIs>,
    /// Which blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<BlockIs>,
    /// Which slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotIs>,
    /// Which query tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenIs>,
    /// Which query heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<HeadIs>,
}

/// The part of a row that a term belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartIs {
    /// The query's own block.
    Diagonal,
    /// A selection slot.
    Slot,
    /// The sliding window.
    Sliding,
}

/// Where a term's key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyIs {
    /// The query's own token.
    Own,
    /// The token after the query's.
    Next,
    /// A token after the query's.
    Future,
    /// The query's own token or an earlier one.
    NotFuture,
    /// First of its block.
    First,
    /// Last of its block.
    Last,
    /// Beyond the end of the sequence.
    Padded,
    /// The farthest that the window still reaches.
    WindowEdge,
    /// The nearest that the window no longer reaches.
    BeyondWindow,
    /// At position 32 or later within its block.
    From32,
    /// At position 64 or later within its block.
    From64,
    /// At position 256 or later within its block.
    From256,
    /// 256 tokens or more before the query's.
    Far256,
}

/// Which block a term's key is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockIs {
    /// The query's own.
    Own,
    /// Later than the query's own.
    Future,
    /// The first.
    First,
    /// The last.
    Last,
    /// The last, where it is shorter than the others.
    Partial,
    /// One that an earlier live slot of the row selects too.
    Repeated,
    /// Number 1024 or later.
    From1024,
}

/// Which slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotIs {
    /// The first.
    First,
    /// The last.
    Last,
    /// A masked one.
    Masked,
    /// Of odd number.
    Odd,
    /// Number 4 or later.
    From4,
    /// Number 16 or later.
    From16,
    /// Number 256 or later.
    From256,
    /// Of negative sel_scale.
    NegativeFactor,
    /// Of sel_scale 0.
    ZeroFactor,
}

/// Which query token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenIs {
    /// Token 0.
    First,
    /// The last of the sequence.
    Last,
    /// The last of the last batch entry.
    VeryLast,
    /// In a last block that is shorter than the others.
    InPartialBlock,
    /// First of its block.
    FirstOfBlock,
    /// Last of its block.
    LastOfBlock,
    /// At position 16 or later.
    From16,
    /// The part of the sequence beyond the last multiple of 16.
    BeyondTiles,
}

/// Which query head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadIs {
    /// Not the first of its group.
    NotFirstOfGroup,
    /// The last of its group.
    LastOfGroup,
    /// Of a kv head other than the first.
    NotFirstKvHead,
    /// Of a batch entry other than the first.
    NotFirstBatch,
    /// Number 8 or later of its group.
    From8OfGroup,
    /// Number 16 or later of its group.
    From16OfGroup,
}

/// What happens to a term.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// It is left out.
    Drop,
    /// It takes part, although it should not.
    Include,
    /// It counts twice.
    Double,
    /// It takes part with this unscaled score instead of being left out.
    IncludeWithScore(f64),
    /// Its key and value are those of a token this far on, within the sequence.
    Shift(isize),
    /// Its key alone is.
    ShiftKey(isize),
    /// Its value alone is.
    ShiftValue(isize),
    /// Its key and value are another kv head's.
    KvHead(HeadFrom),
    /// Its key alone is.
    KeyHead(HeadFrom),
    /// Its value alone is.
    ValueHead(HeadFrom),
    /// Its factor is another.
    Factor(FactorFrom),
    /// Its value counts as zero.
    ZeroValue,
    /// Beyond the sequence's end, what lies next in memory is read.
    ReadBeyond,
}

/// Which kv head is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadFrom {
    /// `query head % kv_heads`, where `/ groups` is meant.
    Modulo,
    /// Head 0.
    Zero,
    /// The next, cyclically.
    Next,
    /// The same head of batch entry 0.
    BatchZero,
}

/// Which factor multiplies a slot's scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactorFrom {
    /// 1: sel_scale is ignored.
    One,
    /// Its magnitude.
    Magnitude,
    /// Its square.
    Square,
    /// Negative ones count as 0.
    Positive,
}

/// What of a selection is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SelectionPart {
    /// The block's number.
    Index,
    /// Whether the slot is live.
    Mask,
    /// The factor.
    SelScale,
}

/// From where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadFrom {
    /// Head 0's selection.
    HeadZero,
    /// The next head's, cyclically.
    NextHead,
    /// Batch entry 0's.
    BatchZero,
    /// The previous token's; token 0's own.
    PreviousToken,
    /// The first token's of the block.
    BlockStart,
    /// The next slot's, cyclically.
    NextSlot,
    /// Slot 0's.
    FirstSlot,
    /// One more than is there, within range (an index only).
    PlusOne,
    /// Its lower eight bits (an index only).
    LowByte,
}

/// How numbers are computed and stored.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Numbers {
    /// Scores are not multiplied by `dim^(-1/2)`.
    ScaleMissing,
    /// `value_dim^(-1/2)` is taken.
    ScaleOfValueDim,
    /// `1 / dim` is taken.
    ScaleSquared,
    /// sel_scale multiplies the weights, not the scores.
    SelScaleAfterSoftmax,
    /// Scores are clamped to `±limit` before the softmax.
    ScoresClamped(f64),
    /// `exp(s)` without subtracting the row's maximum.
    NoMaximum,
    /// The maximum of the first tile serves the whole row.
    MaximumOfFirstTile,
    /// The maximum of the head's first row serves every row.
    MaximumOfFirstRow,
    /// The running maximum starts at 0.
    MaximumFromZero,
    /// The running output is not rescaled when the maximum grows.
    OutputNotRescaled,
    /// The running sum is not rescaled when the maximum grows.
    SumNotRescaled,
    /// The output is not divided by the sum.
    NotNormalized,
    /// The output is divided by the previous row's sum.
    NormalizedByPreviousRow,
    /// The sum takes the weights after their cast.
    SumOfCastWeights,
    /// lse in base 2.
    LseBase2,
    /// lse without the maximum.
    LseWithoutMaximum,
    /// lse of the first tile alone.
    LseOfFirstTile,
    /// lse stored in this format.
    LseIn(Dtype),
    /// A row without keys gives 0/0.
    EmptyRowNan,
    /// A row without keys has lse 0.
    EmptyRowLseZero,
    /// The exponential is off by this relative error.
    ExponentialOff(f64),
    /// Weights below `exp(-limit)` of the largest count as 0.
    ExponentialCut(f64),
    /// P is cast to this format before its product.
    ProbabilityIn(Dtype),
    /// Scores are rounded to this format.
    ScoresIn(Dtype),
    /// Dot products and sums are accumulated in this format.
    AccumulatedIn(Dtype),
    /// q, k, v are rounded to tf32 before products.
    Tf32,
    /// Outputs and gradients are rounded to this format on the way.
    StoredThrough(Dtype),
    /// Outputs and gradients are rounded toward zero.
    Truncated,
    /// A running maximum of -inf is subtracted from scores of -inf.
    MinusInfinityUnguarded,
}

/// The formulas of the backward.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gradient {
    /// `dS = P dP`.
    DeltaMissing,
    /// delta of the previous row.
    DeltaOfPreviousRow,
    /// delta rounded to this format.
    DeltaIn(Dtype),
    /// d_lse takes no part.
    LseIgnored,
    /// d_lse with the wrong sign.
    LseNegated,
    /// P recomputed with the previous row's lse.
    LseOfPreviousRow,
    /// P recomputed with the next query head's lse.
    LseOfNextHead,
    /// dq without `dim^(-1/2)`.
    DqScaleMissing,
    /// dk without `dim^(-1/2)`.
    DkScaleMissing,
    /// dk with it twice.
    DkScaleTwice,
    /// dsel_scale without it.
    DselScaleMissing,
    /// dq without sel_scale.
    DqFactorMissing,
    /// dk without sel_scale.
    DkFactorMissing,
    /// dsel_scale with sel_scale as another factor.
    DselFactorTwice,
    /// dsel_scale from the first query head of the group alone.
    DselFirstHeadOnly,
    /// dsel_scale from P in place of dS.
    DselFromWeights,
    /// dsel_scale of masked slots as if they were live.
    DselMaskedLeaks,
    /// dsel_scale without the last key of the block.
    DselLastKeyMissing,
    /// dv with `exp(s - max)`, not divided by the sum.
    DvUnnormalized,
    /// dv from dS in place of P.
    DvFromScoreGradient,
    /// dk from the first query head of the group alone.
    DkFirstHeadOnly,
    /// dv from the first query head of the group alone.
    DvFirstHeadOnly,
    /// dk with the query of the next head.
    DkQueryOfNextHead,
    /// dv with the cotangent of the next head.
    DvCotangentOfNextHead,
    /// dP with the cotangent of the next head.
    CotangentOfNextHead,
    /// The cotangent of the previous row.
    CotangentOfPreviousRow,
    /// A cotangent of ones, whatever is given.
    CotangentOnes,
    /// Of all rows that attend to a key, the last one's dk is kept.
    DkOverwritten,
    /// Of all rows that attend to a key, the last one's dv is kept.
    DvOverwritten,
    /// Rows that attend to a key through a slot count once for each group of 16 tokens: lost updates.
    DvLostUpdates,
    /// Of the query rows that select a block, those beyond the first 8192 send nothing to its keys.
    SegmentsMissing,
    /// Of each selection head but the first, visits (a token's slot each) beyond the first 4096 send nothing to keys.
    LaterChunksMissing,
    /// dk of the diagonal with dS transposed.
    DkTransposed,
    /// dv of the diagonal with P transposed.
    DvTransposed,
    /// The sliding part's dq is forgotten.
    SlidingDqMissing,
    /// The sliding part's dk is forgotten.
    SlidingDkMissing,
    /// The sliding part's dv is forgotten.
    SlidingDvMissing,
    /// The sliding part's dq replaces the selected part's.
    SlidingDqReplaces,
    /// The sliding part's delta is taken from `out`.
    SlidingDeltaOfOut,
    /// The sliding part's P is taken with the selected part's lse.
    SlidingLseOfSelected,
    /// What falls on padded keys is added to the last token.
    PaddingOntoLastToken,
    /// What falls on padded keys is added to the next head's first tokens.
    PaddingOntoNextHead,
    /// dk and dv are accumulated in this format.
    AccumulatedIn(Dtype),
}
