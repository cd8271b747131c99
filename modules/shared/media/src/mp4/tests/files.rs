//! A box tree to change files by, with no code of the reader under test.

/// A box: with others inside, or with bytes.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: [u8; 4],
    pub(super) content: Content,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Boxes(Vec<Node>),
    Bytes(Vec<u8>),
}

const CONTAINERS: [&[u8; 4]; 9] =
    [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"mvex", b"moof", b"traf"];

/// The boxes of a file.
pub(super) fn parse(mut bytes: &[u8]) -> Vec<Node> {
    let mut nodes = Vec::new();
    while bytes.len() >= 8 {
        let size = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
        let kind: [u8; 4] = bytes[4..8].try_into().unwrap();
        let body = &bytes[8..size];
        let content = match CONTAINERS.contains(&&kind) {
            true => Content::Boxes(parse(body)),
            false => Content::Bytes(body.to_vec()),
        };
        nodes.push(Node { kind, content });
        bytes = &bytes[size..];
    }
    nodes
}

/// The bytes of boxes.
pub(super) fn write(nodes: &[Node]) -> Vec<u8> {
    nodes.iter().flat_map(Node::bytes).collect()
}

impl Node {
    pub(super) fn new(kind: &[u8; 4], body: Vec<u8>) -> Self {
        Self { kind: *kind, content: Content::Bytes(body) }
    }

    /// With version and flags before its fields of 32 bits.
    pub(super) fn full(kind: &[u8; 4], version: u8, fields: &[u32]) -> Self {
        let fields = fields.iter().flat_map(|field| field.to_be_bytes());
        Self::new(kind, [version, 0, 0, 0].into_iter().chain(fields).collect())
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let body = match &self.content {
            Content::Boxes(nodes) => write(nodes),
            Content::Bytes(bytes) => bytes.clone(),
        };
        [&(body.len() as u32 + 8).to_be_bytes()[..], &self.kind, &body].concat()
    }

    pub(super) fn boxes(&mut self) -> &mut Vec<Node> {
        match &mut self.content {
            Content::Boxes(nodes) => nodes,
            Content::Bytes(_) => panic!("{:?} holds no boxes", self.kind),
        }
    }

    pub(super) fn body(&mut self) -> &mut Vec<u8> {
        match &mut self.content {
            Content::Bytes(bytes) => bytes,
            Content::Boxes(_) => panic!("{:?} holds boxes", self.kind),
        }
    }

    pub(super) fn get(&mut self, path: &[&[u8; 4]]) -> &mut Node {
        let Some((kind, rest)) = path.split_first() else { return self };
        let found = self.boxes().iter_mut().find(|node| node.kind == **kind);
        found.unwrap_or_else(|| panic!("no {kind:?}")).get(rest)
    }

    /// Takes the place of the box of this kind, or comes last.
    pub(super) fn put(&mut self, node: Node) {
        let boxes = self.boxes();
        match boxes.iter_mut().find(|other| other.kind == node.kind) {
            Some(other) => *other = node,
            None => boxes.push(node),
        }
    }

    pub(super) fn remove(&mut self, kind: &[u8; 4]) {
        self.boxes().retain(|node| node.kind != *kind);
    }

    pub(super) fn stbl(&mut self) -> &mut Node {
        self.get(&[b"mdia", b"minf", b"stbl"])
    }
}

/// A file whose `moov` is behind its media, so that it may grow.
pub(super) struct File {
    pub(super) nodes: Vec<Node>,
}

impl File {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self { nodes: parse(bytes) }
    }

    pub(super) fn moov(&mut self) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.kind == *b"moov").unwrap()
    }

    /// The track with this place in the file.
    pub(super) fn trak(&mut self, number: usize) -> &mut Node {
        self.moov().boxes().iter_mut().filter(|node| node.kind == *b"trak").nth(number).unwrap()
    }

    /// The only sample entry of a track, header and all.
    pub(super) fn entry(&mut self, number: usize) -> Vec<u8> {
        self.trak(number).stbl().get(&[b"stsd"]).body()[8..].to_vec()
    }

    pub(super) fn set_entries(&mut self, number: usize, version: u8, entries: &[Vec<u8>]) {
        let mut stsd = Node::full(b"stsd", version, &[entries.len() as u32]);
        stsd.body().extend(entries.concat());
        self.trak(number).stbl().put(stsd);
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        write(&self.nodes)
    }
}

/// A box of bytes, for sample entries and what is in them.
pub(super) fn sized(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    Node::new(kind, body.to_vec()).bytes()
}
