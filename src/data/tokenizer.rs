//! A Hugging Face tokenizer folder: `tokenizer.json`, or WordPiece built from `vocab.txt`; text into token columns.
//!
//! Rows are encoded in parallel and never padded: padding belongs to the collator.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use rayon::prelude::*;
use serde_json::{Map, Value};
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::{BertNormalizer, NormalizerWrapper};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{
    AddedToken, EncodeInput, Encoding, InputSequence, PostProcessor, TruncationDirection,
    TruncationParams, TruncationStrategy,
};

use super::collator::{PaddingSettings, Side};
use super::column::{Integers, Rows};
use crate::checkpoint::layout::{
    SPECIAL_TOKENS, TOKENIZER, TOKENIZER_CONFIG, TOKENIZER_EXTRAS, VOCABULARY,
};
use crate::error::Failure;

const INPUT_IDS: &str = "input_ids";
const TOKEN_TYPE_IDS: &str = "token_type_ids";
const ATTENTION_MASK: &str = "attention_mask";
/// Limits above this mean "none": the reference writes 10^30.
const NO_LIMIT: f64 = 1e12;
/// Rows that one thread encodes at a time.
const ROWS_AT_ONCE: usize = 32;

/// Settings that name a special token.
const SPECIAL_NAMES: &[&str] = &[
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// Text to be encoded.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// One text.
    One(Piece<'a>),
    /// Two texts.
    Pair(Piece<'a>, Piece<'a>),
}

/// One text, whole or in words.
#[derive(Clone, Debug)]
pub enum Piece<'a> {
    /// A string.
    Text(&'a str),
    /// Words; tokens know which they belong to.
    Words(Vec<&'a str>),
}

impl<'a> From<Piece<'a>> for InputSequence<'a> {
    fn from(piece: Piece<'a>) -> Self {
        match piece {
            Piece::Text(text) => text.into(),
            Piece::Words(words) => words.into(),
        }
    }
}

impl<'a> From<Input<'a>> for EncodeInput<'a> {
    fn from(input: Input<'a>) -> Self {
        match input {
            Input::One(piece) => EncodeInput::Single(piece.into()),
            Input::Pair(first, second) => EncodeInput::Dual(first.into(), second.into()),
        }
    }
}

/// Encoded rows.
#[derive(Clone, Debug, Default)]
pub struct Encodings {
    /// Token numbers.
    pub input_ids: Rows<Integers>,
    /// 0 for the first text, 1 for the second.
    pub token_type_ids: Rows<Integers>,
    /// 1 everywhere.
    pub attention_mask: Rows<Integers>,
    /// For words: which one a token belongs to, -1 for special tokens. Else empty.
    pub word_ids: Rows<Integers>,
}

impl Encodings {
    fn push(&mut self, encoding: &Encoding, words: bool) {
        let widen = |numbers: &[u32]| {
            numbers
                .iter()
                .map(|number| i64::from(*number))
                .collect::<Vec<_>>()
        };
        self.input_ids.push(widen(encoding.get_ids()));
        self.token_type_ids.push(widen(encoding.get_type_ids()));
        self.attention_mask
            .push(widen(encoding.get_attention_mask()));
        if words {
            self.word_ids.push(
                encoding
                    .get_word_ids()
                    .iter()
                    .map(|word| word.map_or(-1, i64::from)),
            );
        }
    }

    fn append(&mut self, other: &Encodings) {
        self.input_ids.append(&other.input_ids);
        self.token_type_ids.append(&other.token_type_ids);
        self.attention_mask.append(&other.attention_mask);
        self.word_ids.append(&other.word_ids);
    }

    /// The column of that name.
    pub fn take(&mut self, name: &str) -> Option<Rows<Integers>> {
        match name {
            INPUT_IDS => Some(std::mem::take(&mut self.input_ids)),
            TOKEN_TYPE_IDS => Some(std::mem::take(&mut self.token_type_ids)),
            ATTENTION_MASK => Some(std::mem::take(&mut self.attention_mask)),
            _ => None,
        }
    }
}

/// A tokenizer and the settings of its folder.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    files: Vec<PathBuf>,
    model_max_length: Option<usize>,
    model_input_names: Vec<String>,
    pad_token_id: Option<i64>,
    mask_token_id: Option<i64>,
    special_ids: Vec<i64>,
    /// In the order of [`SPECIAL_NAMES`].
    named_ids: Vec<Option<i64>>,
    pad_token_type_id: i64,
    padding_side: Side,
    truncation_side: TruncationDirection,
}

impl Tokenizer {
    /// Loads the tokenizer of a folder.
    pub fn load(folder: &Path) -> Result<Self> {
        let read = |name| read_object(&folder.join(name));
        let config = Config {
            settings: read(TOKENIZER_CONFIG)?.unwrap_or_default(),
            special_tokens: read(SPECIAL_TOKENS)?.unwrap_or_default(),
        };
        let inner = load_tokenizer(folder, &config)?;
        let number = |token: String| inner.token_to_id(&token).map(i64::from);
        let number_of = |name| config.special_token(name).and_then(number);
        let named_ids: Vec<Option<i64>> =
            SPECIAL_NAMES.iter().map(|name| number_of(name)).collect();
        let named = named_ids.iter().copied().flatten();
        let further = config.further_special_tokens().into_iter();
        let special_ids = named.chain(further.filter_map(number)).collect();
        let files = [TOKENIZER, TOKENIZER_CONFIG]
            .iter()
            .chain(TOKENIZER_EXTRAS)
            .map(|name| folder.join(name));
        Ok(Self {
            files: files.filter(|path| path.is_file()).collect(),
            model_max_length: config.model_max_length(),
            model_input_names: config.model_input_names(),
            pad_token_id: number_of("pad_token"),
            mask_token_id: number_of("mask_token"),
            special_ids,
            named_ids,
            pad_token_type_id: config
                .settings
                .get("pad_token_type_id")
                .and_then(Value::as_i64)
                .unwrap_or(0),
            padding_side: if config.is_left("padding_side") {
                Side::Left
            } else {
                Side::Right
            },
            truncation_side: if config.is_left("truncation_side") {
                TruncationDirection::Left
            } else {
                TruncationDirection::Right
            },
            inner,
        })
    }

    /// The files of the tokenizer: each checkpoint carries them.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Copies the files of the tokenizer into a folder.
    pub fn save(&self, folder: &Path) -> Result<()> {
        for path in &self.files {
            let name = path
                .file_name()
                .context("a tokenizer file without a name")?;
            fs::copy(path, folder.join(name))
                .with_context(|| format!("copying {} to {}", path.display(), folder.display()))?;
        }
        Ok(())
    }

    /// Number of tokens; the model's embedding must have at least as many.
    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The tokens by their ids; an id that no token has is empty.
    pub fn vocabulary(&self) -> Vec<String> {
        let ids = 0..self.vocabulary_size() as u32;
        ids.map(|id| self.inner.id_to_token(id).unwrap_or_default())
            .collect()
    }

    /// The token that stands for a hidden one.
    pub fn mask_token_id(&self) -> Option<i64> {
        self.mask_token_id
    }

    /// Tokens that stand for no text (`all_special_ids`).
    pub fn special_ids(&self) -> &[i64] {
        &self.special_ids
    }

    /// The number of a special token by the first part of its setting's name (`bos`, `pad`, ...), if the tokenizer has one;
    /// `None`: there is no such name.
    pub fn special_id(&self, name: &str) -> Option<Option<i64>> {
        let mut names = SPECIAL_NAMES.iter();
        let position = names.position(|setting| setting.strip_suffix("_token") == Some(name))?;
        self.named_ids.get(position).copied()
    }

    /// The text of tokens; numbers below 0 are left out.
    pub fn decode(&self, ids: &[i64], skip_special: bool) -> Result<String> {
        let known = ids.iter().filter(|id| **id >= 0);
        let ids = known
            .map(|id| u32::try_from(*id))
            .collect::<Result<Vec<u32>, _>>();
        let ids = ids.context("a token number is too large")?;
        self.inner
            .decode(&ids, skip_special)
            .map_err(|error| anyhow!(error))
            .context("decoding tokens")
    }

    /// Names of the columns it makes; the first is the one whose length counts.
    pub fn model_input_names(&self) -> &[String] {
        &self.model_input_names
    }

    /// How its rows are padded: to the longest, and with a mask if it makes one.
    pub fn padding(&self) -> PaddingSettings {
        PaddingSettings {
            pad_token_id: self.pad_token_id,
            pad_token_type_id: self.pad_token_type_id,
            side: self.padding_side,
            add_attention_mask: self
                .model_input_names
                .iter()
                .any(|name| name == ATTENTION_MASK),
            ..PaddingSettings::default()
        }
    }

    /// Sets where rows are truncated: at `max_length`, or else at the smaller of the tokenizer's own limit and the
    /// model's number of positions. Returns the limit; `None`: rows are not truncated.
    pub fn limit(
        &mut self,
        max_length: Option<usize>,
        positions: Option<usize>,
    ) -> Result<Option<usize>> {
        if let (Some(wanted), Some(positions)) = (max_length, positions) {
            ensure!(
                wanted <= positions,
                Failure::usage(format!(
                    "max_length {wanted} is more than the model's {positions} positions"
                ))
            );
        }
        let own = [self.model_max_length, positions]
            .into_iter()
            .flatten()
            .min();
        let limit = max_length.or(own);
        if let Some(limit) = limit {
            let special = self
                .inner
                .get_post_processor()
                .map_or(0, |processor| processor.added_tokens(true));
            ensure!(
                limit > special,
                Failure::usage(format!(
                    "max_length {limit} leaves no room beside {special} special tokens"
                ))
            );
        }
        let truncation = |max_length| TruncationParams {
            max_length,
            direction: self.truncation_side,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        self.inner
            .with_truncation(limit.map(truncation))
            .map_err(|error| anyhow!(error))
            .context("setting the truncation")?;
        Ok(limit)
    }

    /// Encodes `count` rows with special tokens, in parallel; the result does not depend on the number of threads.
    pub fn encode<'a>(
        &self,
        count: usize,
        input: impl Fn(usize) -> Input<'a> + Sync,
    ) -> Result<Encodings> {
        let starts: Vec<usize> = (0..count).step_by(ROWS_AT_ONCE).collect();
        let encode_chunk = |start: &usize| {
            let mut chunk = Encodings::default();
            for row in *start..count.min(start + ROWS_AT_ONCE) {
                self.encode_row(input(row), &mut chunk)
                    .with_context(|| format!("tokenizing row {row}"))?;
            }
            Ok(chunk)
        };
        let chunks = starts
            .par_iter()
            .map(encode_chunk)
            .collect::<Result<Vec<_>>>()?;
        let mut encodings = Encodings::default();
        chunks.iter().for_each(|chunk| encodings.append(chunk));
        Ok(encodings)
    }

    fn encode_row(&self, input: Input<'_>, encodings: &mut Encodings) -> Result<()> {
        let words = matches!(input, Input::One(Piece::Words(_)));
        // The fast way keeps neither offsets nor words.
        let encoding = if words {
            self.inner.encode(input, true)
        } else {
            self.inner.encode_fast(input, true)
        };
        encodings.push(&encoding.map_err(|error| anyhow!(error))?, words);
        Ok(())
    }
}

/// `tokenizer_config.json` and `special_tokens_map.json`.
struct Config {
    settings: Map<String, Value>,
    special_tokens: Map<String, Value>,
}

impl Config {
    fn model_max_length(&self) -> Option<usize> {
        let limit = self.settings.get("model_max_length")?.as_f64()?;
        (1.0..NO_LIMIT).contains(&limit).then_some(limit as usize)
    }

    fn model_input_names(&self) -> Vec<String> {
        let given = self
            .settings
            .get("model_input_names")
            .and_then(Value::as_array);
        let names: Option<Vec<String>> = given.map(|names| {
            names
                .iter()
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect()
        });
        names.unwrap_or_else(|| {
            [INPUT_IDS, TOKEN_TYPE_IDS, ATTENTION_MASK]
                .map(str::to_owned)
                .to_vec()
        })
    }

    fn is_left(&self, side: &str) -> bool {
        self.settings.get(side).and_then(Value::as_str) == Some("left")
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.settings.get(name).and_then(Value::as_bool)
    }

    /// A special token, written as a string or as an object with a `content`.
    fn special_token(&self, name: &str) -> Option<String> {
        content(self.written(name)?)
    }

    /// `additional_special_tokens`.
    fn further_special_tokens(&self) -> Vec<String> {
        let list = self
            .written("additional_special_tokens")
            .and_then(Value::as_array);
        list.map(|tokens| tokens.iter().filter_map(content).collect())
            .unwrap_or_default()
    }

    fn written(&self, name: &str) -> Option<&Value> {
        [&self.special_tokens, &self.settings]
            .into_iter()
            .filter_map(|map| map.get(name))
            .find(|token| !token.is_null())
    }
}

fn content(token: &Value) -> Option<String> {
    let content = token
        .as_str()
        .or_else(|| token.get("content").and_then(Value::as_str));
    content.map(str::to_owned)
}

fn read_object(path: &Path) -> Result<Option<Map<String, Value>>> {
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let object = serde_json::from_slice(&text)
        .map_err(|error| Failure::data(format!("{}: {error}", path.display())))?;
    Ok(Some(object))
}

fn load_tokenizer(folder: &Path, config: &Config) -> Result<tokenizers::Tokenizer> {
    let (fast, vocabulary) = (folder.join(TOKENIZER), folder.join(VOCABULARY));
    if fast.is_file() {
        let bytes = fs::read(&fast).with_context(|| format!("reading {}", fast.display()))?;
        let broken = |error| Failure::data(format!("{}: not a tokenizer: {error}", fast.display()));
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(broken)?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(broken)?;
        return configure_normalizer(inner, config).map_err(|error| broken(error).into());
    }
    if vocabulary.is_file() {
        return word_piece(&vocabulary, config)
            .with_context(|| format!("building the tokenizer of {}", vocabulary.display()));
    }
    Err(Failure::data(format!(
        "{}: no tokenizer: neither {TOKENIZER} nor {VOCABULARY} is there",
        folder.display()
    ))
    .hint("put the tokenizer's files beside the model, or name their folder")
    .into())
}

/// What `tokenizer_config.json` says of the normalizer wins over `tokenizer.json`, as in the reference.
fn configure_normalizer(
    mut inner: tokenizers::Tokenizer,
    config: &Config,
) -> tokenizers::Result<tokenizers::Tokenizer> {
    let Some(NormalizerWrapper::BertNormalizer(written)) = inner.get_normalizer() else {
        return Ok(inner);
    };
    let wanted = bert_normalizer(*written, config);
    let changed = (
        wanted.lowercase,
        wanted.strip_accents,
        wanted.handle_chinese_chars,
    ) != (
        written.lowercase,
        written.strip_accents,
        written.handle_chinese_chars,
    );
    if changed {
        inner.with_normalizer(Some(wanted))?;
    }
    Ok(inner)
}

fn bert_normalizer(base: BertNormalizer, config: &Config) -> BertNormalizer {
    let lowercase = config.flag("do_lower_case").unwrap_or(base.lowercase);
    let chinese = config
        .flag("tokenize_chinese_chars")
        .unwrap_or(base.handle_chinese_chars);
    BertNormalizer::new(
        base.clean_text,
        chinese,
        config.flag("strip_accents").or(base.strip_accents),
        lowercase,
    )
}

/// BERT's WordPiece, as the reference builds it from a vocabulary.
fn word_piece(vocabulary: &Path, config: &Config) -> Result<tokenizers::Tokenizer> {
    let failed = |error: tokenizers::Error| Failure::data(error.to_string());
    let special = |name: &str, default: &str| {
        config
            .special_token(name)
            .unwrap_or_else(|| default.to_owned())
    };
    let pieces = WordPiece::read_bytes(&fs::read(vocabulary)?).map_err(failed)?;
    let unknown = special("unk_token", "[UNK]");
    let model = WordPiece::builder()
        .vocab(pieces)
        .unk_token(unknown.clone())
        .build()
        .map_err(failed)?;
    let mut inner = tokenizers::Tokenizer::new(model);
    let number = |token: String| {
        let id = inner.token_to_id(&token).ok_or_else(|| {
            Failure::data(format!("the vocabulary lacks the special token {token:?}"))
        })?;
        Ok::<_, Failure>((token, id))
    };
    let (unknown, _) = number(unknown)?;
    let (separator, first) = (
        number(special("sep_token", "[SEP]"))?,
        number(special("cls_token", "[CLS]"))?,
    );
    let mut tokens = vec![unknown, separator.0.clone(), first.0.clone()];
    tokens.extend(
        [
            special("pad_token", "[PAD]"),
            special("mask_token", "[MASK]"),
        ]
        .into_iter()
        .filter(|token| inner.token_to_id(token).is_some()),
    );
    inner
        .with_normalizer(Some(bert_normalizer(BertNormalizer::default(), config)))
        .map_err(failed)?;
    inner.with_pre_tokenizer(Some(BertPreTokenizer));
    inner.with_post_processor(Some(BertProcessing::new(separator, first)));
    inner.with_decoder(Some(WordPieceDecoder::default()));
    inner
        .add_special_tokens(
            tokens
                .into_iter()
                .map(|token| AddedToken::from(token, true)),
        )
        .map_err(failed)?;
    Ok(inner)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use tempfile::TempDir;

    use super::{Encodings, Input, Piece, Tokenizer};
    use crate::data::collator::Side;
    use crate::data::testing::fixture;

    fn toy() -> Tokenizer {
        Tokenizer::load(&fixture("tokenizer")).expect("the tokenizer")
    }

    /// The toy tokenizer's folder with these files left out and these written.
    fn folder(without: &[&str], with: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        toy().save(folder.path()).expect("the files are copied");
        without
            .iter()
            .for_each(|name| fs::remove_file(folder.path().join(name)).expect("a file is removed"));
        with.iter().for_each(|(name, text)| {
            fs::write(folder.path().join(name), text).expect("a file is written")
        });
        folder
    }

    fn encode(tokenizer: &Tokenizer, inputs: &[Input<'static>]) -> Encodings {
        tokenizer
            .encode(inputs.len(), |row| inputs[row].clone())
            .expect("rows are encoded")
    }

    fn text(text: &'static str) -> Input<'static> {
        Input::One(Piece::Text(text))
    }

    #[test]
    fn texts_become_the_references_tokens() {
        // The first rows of the recorded first batch (tests/data/first_batch.json) check whole rows; these the corners.
        let encodings = encode(
            &toy(),
            &[
                text("The soup was calm."),
                text(""),
                text("THE \u{e9}\u{4e2d} [MASK]"),
            ],
        );
        assert_eq!(
            encodings.input_ids.get(0).len(),
            encodings.attention_mask.get(0).len()
        );
        assert_eq!(encodings.input_ids.get(1), [2, 3]);
        let last = encodings.input_ids.get(2);
        assert_eq!(
            (last[1], last[last.len() - 2]),
            (encodings.input_ids.get(0)[1], 4)
        );
    }

    #[test]
    fn pairs_have_two_types_and_are_truncated_from_the_longer() {
        let mut tokenizer = toy();
        let pair = Input::Pair(
            Piece::Text("the the the the the the"),
            Piece::Text("soup soup"),
        );
        let whole = encode(&tokenizer, std::slice::from_ref(&pair));
        assert_eq!(
            whole.token_type_ids.get(0),
            [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1]
        );
        assert_eq!(tokenizer.limit(Some(8), None).expect("a limit"), Some(8));
        let cut = encode(&tokenizer, &[pair]);
        assert_eq!(cut.token_type_ids.get(0), [0, 0, 0, 0, 0, 1, 1, 1]);
        assert_eq!(cut.attention_mask.get(0), [1; 8]);
    }

    #[test]
    fn tokens_know_their_words() {
        let mut tokenizer = toy();
        let words = Input::One(Piece::Words(vec!["the", "xy", "", "soup"]));
        let ids = encode(&tokenizer, std::slice::from_ref(&words))
            .word_ids
            .get(0);
        assert_eq!((ids[0], ids[1], ids[ids.len() - 1]), (-1, 0, -1));
        assert!(ids.contains(&3) && !ids.contains(&2));
        assert!(ids.iter().filter(|word| **word == 1).count() > 1, "{ids:?}");
        tokenizer.limit(Some(4), None).expect("a limit");
        assert_eq!(encode(&tokenizer, &[words]).word_ids.get(0), [-1, 0, 1, -1]);
    }

    #[test]
    fn the_limit_is_the_smallest_that_is_known() {
        let mut tokenizer = toy();
        assert_eq!(tokenizer.limit(None, None).expect("a limit"), Some(128));
        assert_eq!(tokenizer.limit(None, Some(64)).expect("a limit"), Some(64));
        assert_eq!(
            tokenizer.limit(Some(32), Some(64)).expect("a limit"),
            Some(32)
        );
        assert_eq!(
            tokenizer
                .limit(Some(65), Some(64))
                .expect_err("too long")
                .to_string(),
            "max_length 65 is more than the model's 64 positions"
        );
        assert_eq!(
            tokenizer
                .limit(Some(3), None)
                .expect_err("too short")
                .to_string(),
            "max_length 3 leaves no room beside 3 special tokens"
        );
        let unlimited = folder(
            &[],
            &[(
                "tokenizer_config.json",
                "{\"model_max_length\": 1000000000000000019884624838656}",
            )],
        );
        assert_eq!(
            Tokenizer::load(unlimited.path())
                .expect("a tokenizer")
                .limit(None, None)
                .expect("no limit"),
            None
        );
    }

    #[test]
    fn a_vocabulary_alone_gives_the_same_tokens() {
        let built = Tokenizer::load(folder(&["tokenizer.json"], &[]).path()).expect("a tokenizer");
        let inputs = [
            text("The soup turned out quite NOISY, in the end ."),
            text("[MASK] \u{c9}t\u{e9}"),
            Input::Pair(Piece::Text("a"), Piece::Text("b")),
        ];
        let (expected, found) = (encode(&toy(), &inputs), encode(&built, &inputs));
        assert_eq!(
            (found.input_ids, found.token_type_ids),
            (expected.input_ids, expected.token_type_ids)
        );
        assert_eq!(built.vocabulary_size(), toy().vocabulary_size());
    }

    #[test]
    fn the_configuration_decides_case_sides_and_columns() {
        let config = "{\"do_lower_case\": false, \"padding_side\": \"left\", \"truncation_side\": \"left\", \"model_input_names\": [\"input_ids\"], \"pad_token\": {\"content\": \"[UNK]\"}}";
        let folder = folder(
            &["special_tokens_map.json"],
            &[("tokenizer_config.json", config)],
        );
        let mut tokenizer = Tokenizer::load(folder.path()).expect("a tokenizer");
        assert_eq!(
            (
                tokenizer.padding().side,
                tokenizer.padding().pad_token_id,
                tokenizer.padding().add_attention_mask
            ),
            (Side::Left, Some(1), false)
        );
        assert_eq!(tokenizer.model_input_names(), ["input_ids"]);
        assert_eq!(
            encode(&tokenizer, &[text("THE")]).input_ids.get(0),
            [2, 1, 3]
        );
        tokenizer.limit(Some(4), None).expect("a limit");
        let cut = encode(&tokenizer, &[text("the soup was calm")])
            .input_ids
            .get(0);
        assert_eq!(
            cut[1..3],
            encode(&toy(), &[text("was calm")]).input_ids.get(0)[1..3]
        );
    }

    #[test]
    fn the_files_travel() {
        let names = |tokenizer: &Tokenizer| {
            tokenizer
                .files()
                .iter()
                .map(|path| path.file_name().expect("a name").to_owned())
                .collect::<Vec<_>>()
        };
        let copy = folder(&[], &[]);
        assert_eq!(
            names(&Tokenizer::load(copy.path()).expect("a tokenizer")),
            names(&toy())
        );
        assert_eq!(
            names(&toy()),
            [
                "tokenizer.json",
                "tokenizer_config.json",
                "special_tokens_map.json",
                "vocab.txt"
            ]
        );
    }

    #[test]
    fn broken_folders_are_named() {
        let message =
            |folder: &Path| format!("{:#}", Tokenizer::load(folder).expect_err("no tokenizer"));
        let empty = tempfile::tempdir().expect("a folder");
        assert!(
            message(empty.path())
                .ends_with("no tokenizer: neither tokenizer.json nor vocab.txt is there")
        );
        assert!(
            message(folder(&[], &[("tokenizer.json", "{}")]).path())
                .contains("tokenizer.json: not a tokenizer: ")
        );
        assert!(
            message(folder(&[], &[("tokenizer_config.json", "{")]).path())
                .contains("tokenizer_config.json: EOF")
        );
        let lacking = folder(&["tokenizer.json"], &[("vocab.txt", "[UNK]\na\n")]);
        assert!(
            message(lacking.path()).ends_with("the vocabulary lacks the special token \"[SEP]\"")
        );
    }
}
