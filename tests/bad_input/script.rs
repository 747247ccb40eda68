//! TorchScript files: without consent, no modules, modules whose `forward` is not one to train.

use std::fs;
use std::io::{Cursor, Read, Write};

use super::{DATA, POLICY, Refusal, TRAIN, refused, succeeds};
use crate::support::{Host, fixture};

const ROW: &str = "{\"input_x\": 1.5, \"label\": 4.0}\n";

/// A project whose model is this file.
fn module(content: &[u8]) -> Host {
    let host = Host::new();
    fs::write(host.path("module.pt"), content).expect("written");
    host.write("train.jsonl", &ROW.repeat(8));
    host
}

fn line() -> String {
    format!("{} --trust_model_code", untrusted())
}

fn untrusted() -> String {
    TRAIN.replace("--model model", "--model module.pt")
}

fn good() -> Vec<u8> {
    fs::read(fixture("torchscript/regression.pt")).expect("the fixture")
}

/// The fixture with another `forward`; `self.a` is a parameter, `input_x` of size 4.
fn with_forward(forward: &str) -> Vec<u8> {
    let mut source = zip::ZipArchive::new(Cursor::new(good())).expect("an archive");
    let mut target = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for index in 0..source.len() {
        let mut member = source.by_index(index).expect("a member");
        let name = member.name().to_owned();
        let mut content = Vec::new();
        member.read_to_end(&mut content).expect("read");
        // What the serializer knew of the original source.
        if name.ends_with(".debug_pkl") {
            continue;
        }
        if name.ends_with("code/__torch__.py") {
            let text = String::from_utf8(content).expect("code");
            let (head, _) = text.split_once("  def forward").expect("a method");
            content = format!("{head}{forward}").into_bytes();
        }
        target.start_file(name, options).expect("a member");
        target.write_all(&content).expect("written");
    }
    target.finish().expect("an archive").into_inner()
}

/// `forward` with the usual arguments.
fn forward(returns: &str, body: &str) -> String {
    format!(
        "  def forward(self: __torch__.Regression,\n    input_x: Tensor,\n    labels: Optional[Tensor]=None) -> {returns}:\n    {body}\n"
    )
}

#[test]
fn code_is_not_run_without_consent() {
    let refusal = Refusal::new(
        POLICY,
        "model: `module.pt` is a TorchScript file, which is code",
    );
    refused(&module(&good()), &untrusted(), refusal);
    refused(&module(b"anything"), &untrusted(), refusal);
}

#[test]
fn a_file_that_is_no_module_is_named() {
    let optimizer =
        fs::read(fixture("golden/checkpoint_sample/optimizer.pt")).expect("the fixture");
    let whole = good();
    for (content, error) in [
        (&b""[..], "reading zip archive: not a ZIP archive"),
        (b"hello", "reading zip archive: not a ZIP archive"),
        (
            &whole[..4000],
            "reading zip archive: failed finding central directory",
        ),
        (&optimizer, "locating file constants.pkl: file not found"),
    ] {
        let error =
            format!("module.pt is not a TorchScript module: PytorchStreamReader failed {error}");
        refused(
            &module(content),
            &line(),
            Refusal::new(DATA, &error).hint("save it with torch.jit.save"),
        );
    }
    for (code, error) in [
        (
            "  def forward(self: __torch__.Regression,\n    x: Tensor ->\n",
            "module.pt is not a TorchScript module: expected ) but found 'arrow' here (File \"code/__torch__.py\", line 9)",
        ),
        (
            "  def backward(self: __torch__.Regression,\n    x: Tensor) -> Tensor:\n    return x\n",
            "module.pt: Method 'forward' is not defined",
        ),
    ] {
        refused(
            &module(&with_forward(code)),
            &line(),
            Refusal::new(DATA, error),
        );
    }
}

#[test]
fn a_forward_that_misses_columns_names_them() {
    let other = "  def forward(self: __torch__.Regression,\n    other: Tensor,\n    labels: Optional[Tensor]=None) -> Tensor:\n    return other\n";
    let hint = "columns are passed by name";
    refused(
        &module(&with_forward(other)),
        &line(),
        Refusal::new(DATA, "train.jsonl: no column is an argument of the model (other, labels); its columns are input_x, label").hint(hint),
    );
    let both = other.replace("    other", "    input_x: Tensor,\n    other");
    refused(
        &module(&with_forward(&both)),
        &line(),
        Refusal::new(
            DATA,
            "forward(input_x, other, labels) needs other, but the batch has only labels, input_x",
        )
        .hint(hint)
        .begun(),
    );
    let host = module(&good());
    host.write("train.jsonl", "{\"input_x\": \"a\", \"label\": 1.0}\n");
    refused(
        &host,
        &line(),
        Refusal::new(
            DATA,
            "train.jsonl:1: field \"input_x\" is a string; the model takes numbers",
        ),
    );
    host.write("train.jsonl", "{\"input_x\": 1.0}\n");
    let no_loss = "the model did not return a loss, only logits; its inputs were input_x";
    refused(&host, &line(), Refusal::new(DATA, no_loss).begun());
}

#[test]
fn what_a_forward_returns_must_be_a_loss_and_tensors() {
    const FAILED: &str = "the TorchScript module failed: ";
    for (returns, body, error) in [
        (
            "str",
            "return \"hello\"",
            "forward returned String; expected a tensor, a tuple or a dictionary of tensors",
        ),
        ("int", "return 3", "forward returned Int; expected"),
        ("NoneType", "return None", "forward returned None; expected"),
        (
            "Tuple[Tensor, str]",
            "return (input_x, \"a\")",
            "forward returned a tuple with String; only tensors",
        ),
        (
            "Dict[str, str]",
            "return {\"loss\": \"a\"}",
            "forward returned a dictionary whose entry \"loss\" is String",
        ),
        (
            "Dict[int, Tensor]",
            "return {3: input_x}",
            "forward returned a dictionary with keys of type Int",
        ),
        (
            "Tensor",
            "return torch.matmul(torch.reshape(input_x, [-1, 2]), torch.reshape(input_x, [-1, 1]))",
            "RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x2 and 4x1) (File \"code/__torch__.py\", line 11, in forward)",
        ),
        (
            "Tensor",
            "if True:\n      ops.prim.RaiseException(\"not today\", \"builtins.ValueError\")\n    return input_x",
            "builtins.ValueError: not today (File \"code/__torch__.py\"",
        ),
    ] {
        refused(
            &module(&with_forward(&forward(returns, body))),
            &line(),
            Refusal::new(DATA, &format!("{FAILED}{error}"))
                .hint("forward gets the columns of a batch as tensors")
                .begun(),
        );
    }
    for (returns, body, error) in [
        (
            "Dict[str, Tensor]",
            "return {\"y\": input_x}",
            "the model did not return a loss, only y; its inputs were labels, input_x",
        ),
        (
            "Tensor",
            "return input_x",
            "its first output is the loss; it has shape [4], not one number",
        ),
        (
            "Tensor",
            "return torch.mean(input_x)",
            "the loss depends on no parameter that can be trained",
        ),
        (
            "Tensor",
            "return torch.sum(torch.gt(input_x, 0))",
            "the loss depends on no parameter that can be trained",
        ),
        (
            "Tensor",
            "return torch.sum(torch.complex(torch.mul(input_x, self.a), input_x))",
            "the loss of the module is ComplexFloat; expected a real number",
        ),
    ] {
        refused(
            &module(&with_forward(&forward(returns, body))),
            &line(),
            Refusal::new(DATA, error).begun(),
        );
    }
    let text = forward("Tensor", "return self.a").replace("input_x: Tensor", "input_x: str");
    refused(
        &module(&with_forward(&text)),
        &line(),
        Refusal::new(
            DATA,
            "forward() Expected a value of type 'str' for argument 'input_x'",
        )
        .begun(),
    );
}

#[test]
fn the_altered_fixture_trains_when_its_forward_does() {
    let body = "return torch.mean(torch.mul(input_x, self.a))";
    succeeds(&module(&with_forward(&forward("Tensor", body))), &line());
}
