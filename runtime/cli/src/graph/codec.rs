//! The file format of the bundled graph: a directed graph whose nodes have names, in two to three bytes an
//! edge, names included. It knows nothing of where the names come from, and it is no general archive format: one
//! version, read as a whole.
//!
//! This file is compiled twice: here, where the graph is read, and by `cargo xtask graph`, which writes it. So there
//! is one description of the format, and the writer reads its own output back before it keeps it.
//!
//! ```text
//! 0   8  magic "LMSGRPH1"
//! 8   4  nodes, little-endian
//! 12  4  edges, little-endian
//! 16  4  bytes of the payload once inflated, little-endian
//! 20     the payload as one zlib stream (its Adler-32 is the checksum of the file)
//!
//! payload, every number a LEB128 varint:
//!   bytes of the source text, the text
//!   for each node, in the order of the names: bytes shared with the name before, bytes that follow, those bytes
//!   for each node: its number of out-edges
//!   for each node: the first target, then for each further target its distance to the one before, less one
//! ```
//! The numbers of one kind stand together because deflate finds more in them that way.

use thiserror::Error;

const MAGIC: &[u8; 8] = b"LMSGRPH1";
const HEADER_LEN: usize = 20;
/// A file that claims to be larger once inflated is refused before any memory is taken for it.
const PAYLOAD_LEN_MAX: usize = 64 << 20;

/// A directed graph with named nodes, as the file holds it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NamedGraph {
    /// What the graph is and of which date, for people.
    pub(crate) source: String,
    /// The name of each node, sorted bytewise, no two equal.
    pub(crate) names: Vec<String>,
    /// Edges as (source, target), sorted, no two equal, none from a node to itself.
    pub(crate) edges: Vec<(u32, u32)>,
}

/// Why bytes are not a graph, or a graph cannot be written.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum CodecError {
    #[error("not a limosa graph: the file does not start with {:?}", String::from_utf8_lossy(MAGIC))]
    NotAGraph,
    #[error("the graph is damaged: {0}")]
    Damaged(&'static str),
    #[error("the graph cannot be written: {0}")]
    Unwritable(&'static str),
}

use CodecError::{Damaged, Unwritable};

/// Writes `graph` as the bytes of a file. The same graph always gives the same bytes.
#[allow(dead_code, reason = "the command only reads; cargo xtask graph, which includes this file, writes")]
pub(crate) fn encode(graph: &NamedGraph) -> Result<Vec<u8>, CodecError> {
    let nodes = u32::try_from(graph.names.len()).map_err(|_| Unwritable("more than 2^32 nodes"))?;
    let edges = u32::try_from(graph.edges.len()).map_err(|_| Unwritable("more than 2^32 edges"))?;
    check_order(&graph.names, &graph.edges).map_err(Unwritable)?;

    let mut payload = Vec::new();
    put_len(&mut payload, graph.source.len());
    payload.extend_from_slice(graph.source.as_bytes());
    let mut before: &[u8] = &[];
    for name in &graph.names {
        let name = name.as_bytes();
        let shared = before.iter().zip(name).take_while(|(a, b)| a == b).count();
        put_len(&mut payload, shared);
        put_len(&mut payload, name.len() - shared);
        payload.extend_from_slice(&name[shared..]);
        before = name;
    }
    let mut targets = Vec::new();
    let mut rest = &graph.edges[..];
    for node in 0..nodes {
        let (own, others) = rest.split_at(rest.iter().take_while(|edge| edge.0 == node).count());
        put_len(&mut payload, own.len());
        let mut next = 0;
        for &(_, target) in own {
            put(&mut targets, u64::from(target - next));
            next = target + 1;
        }
        rest = others;
    }
    payload.append(&mut targets);

    if payload.len() > PAYLOAD_LEN_MAX {
        return Err(Unwritable("more than 64 MiB before compression"));
    }
    let payload_len = u32::try_from(payload.len()).map_err(|_| Unwritable("more than 4 GiB"))?;
    let mut file = MAGIC.to_vec();
    for word in [nodes, edges, payload_len] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    file.extend_from_slice(&miniz_oxide::deflate::compress_to_vec_zlib(&payload, 10));
    Ok(file)
}

/// Reads the bytes of a file. Whatever they are, the answer is a graph that keeps the promises of [`NamedGraph`], or an
/// error; memory taken is bounded by the size that the file declares, and that by 64 MiB.
pub(crate) fn decode(file: &[u8]) -> Result<NamedGraph, CodecError> {
    if !file.starts_with(MAGIC) {
        return Err(CodecError::NotAGraph);
    }
    let (header, packed) = file.split_at_checked(HEADER_LEN).ok_or(Damaged("it ends within its header"))?;
    let word = |at: usize| -> usize {
        let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX)
    };
    let (nodes, edges, payload_len) = (word(8), word(12), word(16));
    if payload_len > PAYLOAD_LEN_MAX {
        return Err(Damaged("its header declares a payload of more than 64 MiB"));
    }
    // A node takes three bytes at least and an edge one: larger counts are lies, and would only cost memory.
    if nodes.saturating_mul(3).saturating_add(edges) > payload_len {
        return Err(Damaged("its header declares more nodes and edges than the payload can hold"));
    }
    let payload = miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(packed, payload_len)
        .map_err(|_| Damaged("its payload does not inflate"))?;
    if payload.len() != payload_len {
        return Err(Damaged("its payload is shorter than its header says"));
    }

    let mut bytes = Bytes(&payload);
    let source = bytes.text()?;
    let names = read_names(&mut bytes, nodes)?;
    let edges = read_edges(&mut bytes, nodes, edges)?;
    if !bytes.0.is_empty() {
        return Err(Damaged("bytes are left over after the last edge"));
    }
    check_order(&names, &edges).map_err(Damaged)?;
    Ok(NamedGraph { source, names, edges })
}

fn read_names(bytes: &mut Bytes<'_>, nodes: usize) -> Result<Vec<String>, CodecError> {
    let mut names = Vec::with_capacity(nodes);
    let mut name: Vec<u8> = Vec::new();
    for _ in 0..nodes {
        let shared = bytes.len()?;
        if shared > name.len() {
            return Err(Damaged("a name shares more bytes with the one before than that has"));
        }
        name.truncate(shared);
        let rest_len = bytes.len()?;
        name.extend_from_slice(bytes.take(rest_len)?);
        names.push(String::from_utf8(name.clone()).map_err(|_| Damaged("a name is not UTF-8"))?);
    }
    Ok(names)
}

fn read_edges(bytes: &mut Bytes<'_>, nodes: usize, edges: usize) -> Result<Vec<(u32, u32)>, CodecError> {
    let mut degrees = Vec::with_capacity(nodes);
    for _ in 0..nodes {
        degrees.push(bytes.len()?);
    }
    let total = degrees.iter().try_fold(0usize, |sum, &degree| sum.checked_add(degree));
    if total != Some(edges) {
        return Err(Damaged("the nodes' edges do not add up to the number in the header"));
    }
    let mut list = Vec::with_capacity(edges);
    for (source, degree) in (0u32..).zip(degrees) {
        let mut next = 0u64;
        for _ in 0..degree {
            let target = next.checked_add(bytes.number()?).ok_or(Damaged("a target is out of range"))?;
            let target = u32::try_from(target).map_err(|_| Damaged("a target is out of range"))?;
            list.push((source, target));
            next = u64::from(target) + 1;
        }
    }
    Ok(list)
}

/// The promises of [`NamedGraph`], asked of what is written and of what was read.
fn check_order(names: &[String], edges: &[(u32, u32)]) -> Result<(), &'static str> {
    let nodes = u32::try_from(names.len()).map_err(|_| "more than 2^32 nodes")?;
    if !names.is_sorted_by(|a, b| a < b) {
        return Err("the names are not in order");
    }
    if !edges.is_sorted_by(|a, b| a < b) {
        return Err("the edges are not in order");
    }
    if edges.iter().any(|&(source, target)| source >= nodes || target >= nodes) {
        return Err("an edge names a node that is not there");
    }
    if edges.iter().any(|&(source, target)| source == target) {
        return Err("an edge leads from a node to itself");
    }
    Ok(())
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    // Lossless: no target of Rust has a usize of more than 64 bits.
    put(out, u64::try_from(len).unwrap_or(u64::MAX));
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// What is left to read of a payload.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Damaged("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, CodecError> {
        let mut number = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Damaged("a number has more than 63 bits"))
    }

    fn len(&mut self) -> Result<usize, CodecError> {
        usize::try_from(self.number()?).map_err(|_| Damaged("a length is out of range"))
    }

    fn text(&mut self) -> Result<String, CodecError> {
        let len = self.len()?;
        String::from_utf8(self.take(len)?.to_vec()).map_err(|_| Damaged("its source text is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> NamedGraph {
        let names = ["adduser", "apt", "apt-doc", "libc6", "zlib1g"].map(str::to_owned).to_vec();
        NamedGraph { source: "a test".to_owned(), names, edges: vec![(0, 3), (1, 0), (1, 3), (1, 4), (4, 3)] }
    }

    #[test]
    fn a_graph_comes_back_as_it_was() {
        let graph = sample();
        assert_eq!(decode(&encode(&graph).unwrap()).unwrap(), graph);
        let empty = NamedGraph { source: String::new(), names: vec![], edges: vec![] };
        assert_eq!(decode(&encode(&empty).unwrap()).unwrap(), empty);
    }

    #[test]
    fn long_distances_come_back_as_they_were() {
        let names: Vec<String> = (0..70_000).map(|n| format!("node{n:05}")).collect();
        let edges: Vec<(u32, u32)> = vec![(0, 1), (0, 127), (0, 256), (0, 16_640), (0, 69_999), (69_999, 0)];
        let graph = NamedGraph { source: "é".to_owned(), names, edges };
        assert_eq!(decode(&encode(&graph).unwrap()).unwrap(), graph);
    }

    #[test]
    fn a_graph_that_breaks_its_promises_is_not_written() {
        for edges in [vec![(1, 3), (0, 3)], vec![(0, 3), (0, 3)], vec![(2, 2)], vec![(0, 5)], vec![(5, 0)]] {
            let graph = NamedGraph { edges, ..sample() };
            assert!(matches!(encode(&graph), Err(Unwritable(_))), "{:?}", graph.edges);
        }
        let mut graph = sample();
        graph.names.swap(0, 1);
        assert_eq!(encode(&graph), Err(Unwritable("the names are not in order")));
    }

    #[test]
    fn every_truncation_and_every_damaged_byte_is_an_error_or_the_same_graph() {
        let graph = sample();
        let file = encode(&graph).unwrap();
        for len in 0..file.len() {
            assert!(decode(&file[..len]).is_err(), "cut to {len} bytes");
        }
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut damaged = file.clone();
                damaged[at] ^= 1 << bit;
                // A few bits of a zlib stream's head carry no meaning; all others must be noticed.
                if let Ok(read) = decode(&damaged) {
                    assert_eq!(read, graph, "bit {bit} of byte {at}");
                }
            }
        }
    }

    #[test]
    fn a_header_that_declares_too_much_is_refused() {
        let mut file = encode(&sample()).unwrap();
        file[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(decode(&file), Err(Damaged(_))));
        file[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(decode(&file), Err(Damaged(_))));
        assert_eq!(decode(b"GIF89a"), Err(CodecError::NotAGraph));
    }
}
