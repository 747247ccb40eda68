//! Fields 84 and 87 to 89: what of `torch.compile` there is without Python. It depends on what the model is: the executor of
//! TorchScript fuses operations of a TorchScript module, and inductor's machine code comes as an AOT package.

use anyhow::Result;

use super::super::run::{Backend, ModelForm};
use super::Draft;
use super::build::unknown;
use super::paths::described;

/// The fields in the order in which a finding names them.
const FIELDS: &[&str] = &[
    "torch_compile_backend",
    "torchdynamo",
    "torch_compile_mode",
    "torch_compile",
];
/// What needs a model whose type is not fixed.
const CASTS: &[&str] = &["bf16", "fp16", "bf16_full_eval", "fp16_full_eval"];

impl Draft<'_> {
    /// The deprecated name of torch_compile_backend wins, as in the reference.
    pub(super) fn replace_dynamo(&mut self) {
        if let Some(backend) = self.arguments.torchdynamo.clone() {
            self.arguments.torch_compile_backend = Some(backend);
            self.notes
                .push("torchdynamo is deprecated; use torch_compile_backend".to_owned());
        }
    }

    /// Backend and mode imply compilation. The backend is the reference's, inductor, except for TorchScript modules, which
    /// inductor cannot take.
    pub(super) fn complete_compilation(&mut self) {
        let form = self.model_form();
        let arguments = &mut self.arguments;
        arguments.torch_compile |=
            arguments.torch_compile_backend.is_some() || arguments.torch_compile_mode.is_some();
        if arguments.torch_compile {
            arguments.torch_compile_backend.get_or_insert_with(|| {
                let is_script = form == Some(ModelForm::Torchscript);
                if is_script { "ts" } else { "inductor" }.to_owned()
            });
        }
    }

    pub(super) fn check_compilation(&mut self) {
        let Some(form) = self.model_form() else {
            return;
        };
        if form == ModelForm::Package {
            self.check_package();
        }
        let Some(backend) = self.arguments.torch_compile_backend.clone() else {
            return;
        };
        let text = match (backend.as_str(), form) {
            ("ts", ModelForm::Torchscript)
            | ("inductor", ModelForm::Package)
            | ("eager", ModelForm::Folder | ModelForm::Torchscript) => return,
            ("ts", _) => format!(
                "ts fuses operations of TorchScript files, and the model is {}; leave it out",
                described(form)
            ),
            ("inductor", _) => "inductor compiles in Python: make an AOT package of the model there \
                 (torch._inductor.aoti_compile_and_package) and give it to `host evaluate` or `host predict`, or leave it out"
                .to_owned(),
            _ => format!(
                "an AOT package was compiled by inductor, and {backend} is another backend; leave it out"
            ),
        };
        let given = FIELDS.iter().find(|field| self.is_given(field));
        self.contradict(&[given.unwrap_or(&FIELDS[0]), "model"], text);
    }

    /// A package computes no gradients, and its type was fixed when it was made.
    fn check_package(&mut self) {
        if self.is_training() {
            self.contradict(
                &["model"],
                "is an AOT package, which computes no gradients; train the model that it was made of, then evaluate and predict with the package",
            );
            return;
        }
        for field in CASTS {
            if !self.is_given(field) {
                continue;
            }
            self.contradict(
                &[field, "model"],
                "needs a model that can be cast, and the type of an AOT package was fixed when it was made; leave it out",
            );
        }
        if self.arguments.jit_mode_eval {
            self.contradict(
                &["jit_mode_eval", "model"],
                "freezes a model, and an AOT package is frozen already; leave it out",
            );
        }
    }

    pub(super) fn compilation(&self) -> Result<Option<Backend>> {
        let backend = self.arguments.torch_compile_backend.as_deref();
        let backend = backend.map(|name| match name {
            "eager" => Ok(Backend::Eager),
            "ts" => Ok(Backend::Ts),
            "inductor" => Ok(Backend::Inductor),
            other => Err(unknown("torch_compile_backend", other)),
        });
        backend.transpose()
    }
}
