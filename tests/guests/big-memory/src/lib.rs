//! A plugin whose memory is over the limit from the start; see `build.rs`.

use trainer_sdk::{NoConfig, Plugin, Result, Run, Setup, TrainHooks};

struct Big;

impl Plugin for Big {
    type Config = NoConfig;

    fn init(_: NoConfig, _: &Run<'_>, _: &Setup<'_>) -> Result<Self> {
        Ok(Self)
    }
}

impl TrainHooks for Big {}

trainer_sdk::export!(Big: train);
