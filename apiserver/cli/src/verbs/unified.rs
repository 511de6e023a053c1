//! The difference between two texts, in the unified format of `diff -u`. Pure.

use std::fmt::Write as _;

/// Lines of context around each change: the figure of every `diff`.
const CONTEXT: usize = 3;

/// Cells of the table that the longest common part is looked for in; beyond it what differs counts as replaced whole. At
/// four bytes a cell this is 64 MiB, which a manifest of 4,000 lines takes that differs from the first line to the last.
const CELLS_MAX: usize = 16 << 20;

/// One line: in both, gone, or new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line<'t> {
    Same(&'t str),
    Gone(&'t str),
    New(&'t str),
}

/// What leads from one text to the other; empty when they are the same.
pub fn diff(old: &str, new: &str) -> String {
    let lines = compare(&old.lines().collect::<Vec<_>>(), &new.lines().collect::<Vec<_>>());
    hunks(&lines).into_iter().map(|(from, to)| hunk(&lines, from, to)).collect()
}

/// All lines of both, in an order that leads from one to the other.
fn compare<'t>(old: &[&'t str], new: &[&'t str]) -> Vec<Line<'t>> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[head..], &new[head..]);
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old_rest, end) = old_rest.split_at(old_rest.len() - tail);
    let new_rest = &new_rest[..new_rest.len() - tail];
    let mut lines: Vec<Line<'t>> = old[..head].iter().map(|line| Line::Same(line)).collect();
    if old_rest.len().saturating_mul(new_rest.len()) > CELLS_MAX {
        lines.extend(old_rest.iter().map(|line| Line::Gone(line)));
        lines.extend(new_rest.iter().map(|line| Line::New(line)));
    } else {
        align(old_rest, new_rest, &mut lines);
    }
    lines.extend(end.iter().map(|line| Line::Same(line)));
    lines
}

/// By the longest common subsequence, found from the end so that it can be read from the beginning.
fn align<'t>(old: &[&'t str], new: &[&'t str], lines: &mut Vec<Line<'t>>) {
    let width = new.len() + 1;
    let mut common = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(Line::Same(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len()
            || (i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1])
        {
            lines.push(Line::Gone(old[i]));
            i += 1;
        } else {
            lines.push(Line::New(new[j]));
            j += 1;
        }
    }
}

/// From where to where lines are shown: changes with their context, those that touch together.
fn hunks(lines: &[Line<'_>]) -> Vec<(usize, usize)> {
    let mut hunks: Vec<(usize, usize)> = Vec::new();
    for (at, _) in lines.iter().enumerate().filter(|(_, line)| !matches!(line, Line::Same(_))) {
        let (from, to) = (at.saturating_sub(CONTEXT), (at + CONTEXT + 1).min(lines.len()));
        match hunks.last_mut().filter(|(_, end)| *end >= from) {
            Some((_, end)) => *end = to,
            None => hunks.push((from, to)),
        }
    }
    hunks
}

fn hunk(lines: &[Line<'_>], from: usize, to: usize) -> String {
    let in_old = |lines: &[Line<'_>]| lines.iter().filter(|line| !matches!(line, Line::New(_))).count();
    let in_new = |lines: &[Line<'_>]| lines.iter().filter(|line| !matches!(line, Line::Gone(_))).count();
    let (before, shown) = (&lines[..from], &lines[from..to]);
    let mut text = format!(
        "@@ -{} +{} @@\n",
        range(in_old(before), in_old(shown)),
        range(in_new(before), in_new(shown))
    );
    for line in shown {
        let (sign, line) = match line {
            Line::Same(line) => (' ', line),
            Line::Gone(line) => ('-', line),
            Line::New(line) => ('+', line),
        };
        let _ = writeln!(text, "{sign}{line}");
    }
    text
}

/// First line and number of lines, as `diff` writes them: a single line without its number, none with the line before.
fn range(before: usize, count: usize) -> String {
    match count {
        0 => format!("{before},0"),
        1 => format!("{}", before + 1),
        _ => format!("{},{count}", before + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_shown_with_their_context() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\n";
        let new = "a\nb\nc\nD\ne\nf\ng\nh\ni\nj\nk\nl\nm\n";
        assert_eq!(
            diff(old, new),
            "@@ -1,7 +1,7 @@\n a\n b\n c\n-d\n+D\n e\n f\n g\n@@ -10,3 +10,4 @@\n j\n k\n l\n+m\n"
        );
        assert_eq!(diff(old, old), "");
    }

    #[test]
    fn what_comes_and_goes_whole_is_all_new_or_all_gone() {
        assert_eq!(diff("", "a\nb\n"), "@@ -0,0 +1,2 @@\n+a\n+b\n");
        assert_eq!(diff("a\n", ""), "@@ -1 +0,0 @@\n-a\n");
    }

    #[test]
    fn changes_near_each_other_share_a_hunk() {
        let text = diff("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\nx\n3\n4\n5\n6\n7\ny\n9\n");
        assert_eq!(text.matches("@@").count(), 2, "{text}");
        assert!(text.starts_with("@@ -1,9 +1,9 @@\n"), "{text}");
    }
}
