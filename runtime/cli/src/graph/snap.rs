//! Edge lists in the text format of the Stanford collection (SNAP): one edge a line, `from<white space>to`, with `#`
//! before a comment. No weights and no time stamps: a third column is an error, not something that is passed over.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::{Graph, GraphError, Labels};

/// Lines are quoted in errors up to this many characters.
const QUOTE_CHARS_MAX: usize = 60;

/// Reads the edge list at `path`. Nodes are numbered anew, without gaps, in the order of their ids; edges that occur
/// twice and edges from a node to itself are dropped.
pub(crate) fn read_snap(path: &Path) -> Result<Graph, GraphError> {
    let file = File::open(path).map_err(|cause| GraphError::Read { path: path.to_owned(), cause })?;
    parse(BufReader::with_capacity(1 << 20, file), path)
}

fn parse(mut text: impl BufRead, path: &Path) -> Result<Graph, GraphError> {
    let mut edges: Vec<(u64, u64)> = Vec::new();
    let mut line = Vec::new();
    let mut line_number = 0u64;
    loop {
        line.clear();
        // Bytes, not `lines()`: a line that is not UTF-8 is to be named like any other malformed line.
        let len =
            text.read_until(b'\n', &mut line).map_err(|cause| GraphError::Read { path: path.to_owned(), cause })?;
        if len == 0 {
            break;
        }
        line_number += 1;
        match parse_line(&line) {
            Ok(Some(edge)) => edges.push(edge),
            Ok(None) => {}
            Err(expected) => {
                let path = path.to_owned();
                return Err(GraphError::Malformed { path, line_number, line: quote(&line), expected });
            }
        }
    }
    number_anew(edges, path)
}

/// The edge of a line, nothing for a comment or a blank line, or what was expected instead.
fn parse_line(line: &[u8]) -> Result<Option<(u64, u64)>, &'static str> {
    const ID: &str = "a node id, a whole number from 0 to 18446744073709551615";
    let line = line.trim_ascii();
    if line.is_empty() || line[0] == b'#' {
        return Ok(None);
    }
    let line = std::str::from_utf8(line).map_err(|_| "text, two node ids with white space between them")?;
    let mut columns = line.split_ascii_whitespace();
    let (Some(from), Some(to), None) = (columns.next(), columns.next(), columns.next()) else {
        return Err("exactly two node ids with white space between them");
    };
    Ok(Some((from.parse().map_err(|_| ID)?, to.parse().map_err(|_| ID)?)))
}

fn number_anew(mut edges: Vec<(u64, u64)>, path: &Path) -> Result<Graph, GraphError> {
    // Before the ids are collected: the list of ids of a large graph is the larger part of the memory otherwise.
    edges.sort_unstable();
    edges.dedup();
    let mut ids: Vec<u64> = edges.iter().flat_map(|&(from, to)| [from, to]).collect();
    ids.sort_unstable();
    ids.dedup();
    node_count_in_range(ids.len(), path)?;

    let index = |id: u64| -> Option<u32> { u32::try_from(ids.binary_search(&id).ok()?).ok() };
    // The numbers rise with the ids, so the order of the edges stays.
    let edges: Vec<(u32, u32)> = edges
        .into_iter()
        .filter(|(from, to)| from != to)
        .filter_map(|(from, to)| Some((index(from)?, index(to)?)))
        .collect();
    if edges.is_empty() {
        return Err(GraphError::Empty { path: path.to_owned() });
    }
    Ok(Graph { source: path.display().to_string(), node_count: ids.len(), edges, labels: Labels::Ids(ids) })
}

fn node_count_in_range(count: usize, path: &Path) -> Result<(), GraphError> {
    match u32::try_from(count) {
        Ok(_) => Ok(()),
        Err(_) => Err(GraphError::TooManyNodes { path: path.to_owned(), count }),
    }
}

fn quote(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line.trim_ascii());
    let mut quoted: String = text.chars().take(QUOTE_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTE_CHARS_MAX).is_some() {
        quoted.push('…');
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &[u8]) -> Result<Graph, GraphError> {
        parse(text, Path::new("list.txt"))
    }

    #[test]
    fn comments_blank_lines_and_any_white_space_are_read() {
        let graph = parsed(b"# FromNodeId\tToNodeId\n\n7\t3\r\n  3   900 \n# end\n900 7").unwrap();
        assert_eq!(graph.node_count, 3);
        assert_eq!(graph.edges, [(0, 2), (1, 0), (2, 1)]);
        assert_eq!([0, 1, 2].map(|node| graph.label(node)), ["3", "7", "900"]);
    }

    #[test]
    fn the_largest_ids_are_read() {
        let graph = parsed(b"18446744073709551615 0\n").unwrap();
        assert_eq!(graph.edges, [(1, 0)]);
        assert_eq!(graph.label(1), "18446744073709551615");
    }

    #[test]
    fn duplicates_and_self_loops_are_dropped_and_their_nodes_kept() {
        let graph = parsed(b"1 2\n5 5\n1 2\n2 1\n").unwrap();
        assert_eq!(graph.edges, [(0, 1), (1, 0)]);
        assert_eq!(graph.node_count, 3);
    }

    #[test]
    fn a_malformed_line_is_named() {
        let cases: [(&[u8], u64, &str); 6] = [
            (b"1 2\n\n# c\n1,2\n", 4, "exactly two node ids"),
            (b"1 2 3\n", 1, "exactly two node ids"),
            (b"1 2\n1\n", 2, "exactly two node ids"),
            (b"1 -2\n", 1, "a whole number"),
            (b"1 18446744073709551616\n", 1, "a whole number"),
            (b"1 \xff\n", 1, "text"),
        ];
        for (text, at, expectation) in cases {
            match parsed(text) {
                Err(GraphError::Malformed { line_number, expected, .. }) => {
                    assert_eq!(line_number, at, "{text:?}");
                    assert!(expected.contains(expectation), "{expected}");
                }
                other => panic!("{text:?} gave {other:?}"),
            }
        }
        let error = parsed(b"1 2\nfrom to\n").unwrap_err().to_string();
        assert!(error.contains("list.txt") && error.contains("line 2") && error.contains("from to"), "{error}");
    }

    #[test]
    fn a_long_line_is_shortened_and_control_characters_are_escaped() {
        let mut text = b"\x1b[31m".to_vec();
        text.extend_from_slice(&[b'9'; 5000]);
        let error = parsed(&text).unwrap_err().to_string();
        assert!(error.len() < 400 && error.contains('…') && !error.contains('\x1b'), "{error}");
    }

    #[test]
    fn a_graph_without_edges_is_named() {
        for text in [&b""[..], b"# nothing\n\n", b"4 4\n"] {
            assert!(matches!(parsed(text), Err(GraphError::Empty { .. })));
        }
    }

    #[test]
    fn more_nodes_than_the_numbers_reach_are_named() {
        let path = Path::new("list.txt");
        assert!(node_count_in_range(usize::try_from(u32::MAX).unwrap(), path).is_ok());
        let error = node_count_in_range(usize::MAX, path).unwrap_err();
        assert!(matches!(error, GraphError::TooManyNodes { count: usize::MAX, .. }));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read_snap(Path::new("/nonexistent/list.txt")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/list.txt"), "{error}");
    }
}
