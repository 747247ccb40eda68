//! Imports an interface that no host provides.

use trainer_sdk::{Ctx, NoConfig, Plugin, Result, Run, Setup, TrainHooks};

mod bindings {
    wit_bindgen::generate!({
        inline: "
            package test:accelerator;
            interface raw { launch: func(kernel: string) -> u32; }
            world needs-raw { import raw; }
        ",
    });
}

struct Needy;

impl Plugin for Needy {
    type Config = NoConfig;

    fn init(_: NoConfig, _: &Run<'_>, _: &Setup<'_>) -> Result<Self> {
        Ok(Self)
    }
}

impl TrainHooks for Needy {
    fn on_train_begin(&mut self, _: &Ctx<'_>) -> Result<()> {
        bindings::test::accelerator::raw::launch("softmax");
        Ok(())
    }
}

trainer_sdk::export!(Needy: train);
