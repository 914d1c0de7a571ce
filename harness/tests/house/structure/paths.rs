//! The paths that a file of Rust mentions, outside its tests.

use std::collections::BTreeMap;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// What a file mentions.
#[derive(Default)]
pub(crate) struct Mentioned {
    /// Paths that begin with `crate`, `super` or `self`, and every path of a `use`.
    pub(crate) paths: Vec<Vec<String>>,
    /// What the file's own `use` lines give a name to: name and path.
    pub(crate) names: BTreeMap<String, Vec<String>>,
}

/// What `text`, the file `name`, mentions.
pub(crate) fn mentioned(name: &str, text: &str) -> Mentioned {
    let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{name} is not read as Rust: {error}"));
    let mut mentioned = Mentioned::default();
    mentioned.walk(&tokens.into_iter().collect::<Vec<_>>(), 0);
    mentioned
}

impl Mentioned {
    /// Takes note of every path in `tokens`, which stand in `depth` modules within the file.
    fn walk(&mut self, tokens: &[TokenTree], depth: usize) {
        let mut at = 0;
        while at < tokens.len() {
            if let Some(end) = test_item(&tokens[at..]) {
                at += end;
            } else if is_word(&tokens[at], "use") {
                let end =
                    tokens[at..].iter().position(|token| is_mark(token, ';')).map_or(tokens.len(), |end| at + end);
                self.tree(&tokens[at + 1..end], &[], Some(depth));
                at = end;
            } else if let (true, Some(TokenTree::Group(group))) = (is_word(&tokens[at], "mod"), tokens.get(at + 2)) {
                self.walk(&inside(group), depth + 1);
                at += 3;
            } else if begins(&tokens[at..]) {
                at += self.path(&tokens[at..], depth);
            } else {
                if let TokenTree::Group(group) = &tokens[at] {
                    self.walk(&inside(group), depth);
                }
                at += 1;
            }
        }
    }

    /// The path at the start of `tokens`; returns how many tokens it takes.
    fn path(&mut self, tokens: &[TokenTree], depth: usize) -> usize {
        let mut path = vec![tokens[0].to_string()];
        let mut at = 1;
        while let [one, two, TokenTree::Ident(name), ..] = &tokens[at..] {
            if !(is_mark(one, ':') && is_mark(two, ':')) {
                break;
            }
            path.push(name.to_string());
            at += 3;
        }
        self.add(path, depth);
        at
    }

    /// The tree of a `use`, or of one of its groups, whose paths begin with `prefix`.
    fn tree(&mut self, tokens: &[TokenTree], prefix: &[String], depth: Option<usize>) {
        for part in tokens.split(|token| is_mark(token, ',')).filter(|part| !part.is_empty()) {
            let mut path = prefix.to_vec();
            let mut name = None;
            let mut renamed = false;
            for token in part {
                match token {
                    TokenTree::Group(group) => {
                        self.tree(&inside(group), &path, depth);
                        path.clear();
                    }
                    TokenTree::Ident(word) if word == "as" => renamed = true,
                    TokenTree::Ident(word) if renamed => name = Some(word.to_string()),
                    TokenTree::Ident(word) if word != "self" || path.is_empty() => path.push(word.to_string()),
                    token if is_mark(token, '*') => path.push("*".to_owned()),
                    _ => {}
                }
            }
            if let (Some(last), Some(depth)) = (path.last().cloned(), depth) {
                if depth == 0 {
                    self.names.insert(name.unwrap_or(last), path.clone());
                }
                self.add(path, depth);
            }
        }
    }

    /// Takes note of a path written `depth` modules within the file: as many `super` lead no further than the file.
    fn add(&mut self, mut path: Vec<String>, depth: usize) {
        let up = path.iter().take_while(|part| *part == "super").count().min(depth);
        if up > 0 {
            path.splice(..up, ["self".to_owned()]);
        }
        self.paths.push(path);
    }
}

/// The tokens of an item that stands in tests alone, where one begins here: `#[cfg(test)]` and all up to its `;` or its braces.
fn test_item(tokens: &[TokenTree]) -> Option<usize> {
    let [mark, TokenTree::Group(attribute), ..] = tokens else { return None };
    let text: String = attribute.stream().to_string().split_whitespace().collect();
    if !(is_mark(mark, '#') && text == "cfg(test)") {
        return None;
    }
    let braces = |token: &TokenTree| matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
    let is_use = tokens
        .get(2..)?
        .iter()
        .take_while(|token| !is_mark(token, ';') && !braces(token))
        .any(|token| is_word(token, "use"));
    let ends = |token: &TokenTree| is_mark(token, ';') || (!is_use && braces(token));
    tokens.iter().position(ends).map(|end| end + 1)
}

/// Whether `crate::`, `super::` or `self::` stands here.
fn begins(tokens: &[TokenTree]) -> bool {
    let [first, one, two, ..] = tokens else { return false };
    ["crate", "super", "self"].iter().any(|word| is_word(first, word)) && is_mark(one, ':') && is_mark(two, ':')
}

fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(found) if found == word)
}

fn is_mark(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(found) if found.as_char() == mark)
}

fn inside(group: &proc_macro2::Group) -> Vec<TokenTree> {
    group.stream().into_iter().collect()
}
