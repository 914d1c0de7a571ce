//! Does the check see? Wrong gradients are planted, and the check has to refuse each of them.

use ndarray::{ArrayD, Dimension};

use super::{Problem, Settings, Verdict};

/// A wrong gradient that was planted, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Mutated {
    /// The tensor whose gradient was changed.
    pub variable: String,
    /// How, in words.
    pub mutation: String,
    /// The largest change to an element.
    pub size: f64,
    /// What the check said; only [`Verdict::Fail`] is right.
    pub verdict: Verdict,
}

impl Problem<'_> {
    /// Plants faults of [`Settings::relative`] in each tensor's claim, one at a time, and judges each as
    /// [`Problem::check`] would: the whole tensor too large by that share, and one element (the largest) off by that
    /// share of itself; where directions are checked, not elements, by four times that share of the tensor's norm. A
    /// tensor of zeros, or of less than 2^-30 of the largest claim of all (which the loss's last bits do not reach), gets
    /// one element off by the share of that largest claim.
    ///
    /// The numerical derivatives are taken once for all faults.
    pub fn mutated(&self, settings: &Settings) -> Vec<Mutated> {
        let size: usize = self.variables.iter().map(|variable| variable.value.len()).sum();
        let by_element = size <= settings.elements;
        let directions = if by_element { self.every_element() } else { self.drawn_directions(settings) };
        let measured = self.measure(directions, settings);
        let mut mutated = Vec::new();
        for (index, variable) in self.variables.iter().enumerate() {
            for (mutation, gradient) in self.mutations(index, settings.relative, by_element) {
                let changes = gradient.iter().zip(&variable.gradient).map(|(new, old)| (new - old).abs());
                mutated.push(Mutated {
                    variable: variable.name.clone(),
                    mutation,
                    size: changes.fold(0.0, f64::max),
                    verdict: self.judge(&measured, settings, Some((index, &gradient))).verdict,
                });
            }
        }
        mutated
    }

    /// Asserts that every fault of [`Problem::mutated`] is refused.
    ///
    /// # Panics
    /// One is not; the message names it.
    pub fn assert_detects(&self, settings: &Settings) {
        let mutated = self.mutated(settings);
        let missed: Vec<&Mutated> = mutated.iter().filter(|mutated| mutated.verdict != Verdict::Fail).collect();
        assert!(missed.is_empty(), "{} of {} planted faults are not seen: {missed:?}", missed.len(), mutated.len());
    }

    fn mutations(&self, index: usize, relative: f64, by_element: bool) -> Vec<(String, ArrayD<f64>)> {
        let gradient = &self.variables[index].gradient;
        let by_size = |(_, left): &(_, &f64), (_, right): &(_, &f64)| left.abs().total_cmp(&right.abs());
        let Some((at, &largest)) = gradient.indexed_iter().max_by(by_size) else { return Vec::new() };
        let norm = gradient.iter().map(|d| d * d).sum::<f64>().sqrt();
        let overall = self.variables.iter().flat_map(|v| &v.gradient).fold(0.0f64, |max, d| max.max(d.abs()));
        let out_of_reach = largest.abs() <= overall * 2f64.powi(-30);
        let off = match by_element {
            _ if out_of_reach => relative * overall,
            true => relative * largest,
            false => 4.0 * relative * norm,
        };
        let mut mutations = Vec::new();
        if off != 0.0 {
            let mut one = gradient.clone();
            one[&at] += off;
            mutations.push((format!("the element {:?} off by {off:.1e}", at.as_array_view().to_vec()), one));
        }
        if !out_of_reach {
            mutations.push((format!("all of it larger by {relative:.1e}"), gradient.mapv(|d| d * (1.0 + relative))));
        }
        mutations
    }
}

#[cfg(test)]
mod tests {
    use super::super::Variable;
    use super::*;

    fn changes(gradients: &[&[f64]], index: usize, by_element: bool) -> Vec<Vec<f64>> {
        let variables = gradients.iter().map(|gradient| Variable::row(gradient, gradient));
        let problem = Problem::new(|_| 0.0, variables.collect());
        let mutated = problem.mutations(index, 0.5, by_element);
        mutated
            .iter()
            .map(|(_, gradient)| gradient.iter().zip(gradients[index]).map(|(new, old)| new - old).collect())
            .collect()
    }

    #[test]
    fn mutations_have_the_size_that_is_said() {
        // One element (the largest) and the whole tensor by the share of itself.
        assert_eq!(changes(&[&[3.0, -4.0]], 0, true), [[0.0, -2.0], [1.5, -2.0]]);
        // By four times that share of the norm, which is 5.
        assert_eq!(changes(&[&[3.0, -4.0]], 0, false), [[0.0, 10.0], [1.5, -2.0]]);
        // Zeros, and what is below 2^-30 of the largest claim of all: one element by the share of that.
        assert_eq!(changes(&[&[0.0, 0.0], &[8.0]], 0, true), [[0.0, 4.0]]);
        let edge = 8.0 * 2f64.powi(-30);
        assert_eq!(changes(&[&[edge], &[8.0]], 0, false), [[4.0]]);
        assert_eq!(changes(&[&[2.0 * edge], &[8.0]], 0, true), [[edge], [edge]]);
        assert!(changes(&[&[0.0], &[0.0]], 0, true).is_empty());
        assert!(changes(&[&[], &[8.0]], 0, true).is_empty());
    }
}
