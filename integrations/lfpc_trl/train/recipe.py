"""Recipes: all settings of a training run apart from its model and data.

A recipe is a flat YAML file, parsed by TRL's own parser; options on the command line override it. Its
settings are those of

* `StageSettings`, which LFPC adds,
* `LaunchSettings`, the number of processes,
* TRL's `GRPOConfig` and `ModelConfig`, under TRL's names.

Settings that follow from others cannot be set: `REFUSED` says why.
"""

import argparse
import dataclasses
import functools
import os
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import NoneType
from typing import Any, cast

from trl import GRPOConfig, ModelConfig, TrlParser

from lfpc_trl.errors import UserError, did_you_mean, nearest, not_found, not_one_of, one_line
from lfpc_trl.json_values import parse_json
from lfpc_trl.models.families import LoraTargets
from lfpc_trl.models.weights import is_kernel_of_the_hub
from lfpc_trl.rollouts.own_rewards import PRESETS
from lfpc_trl.train.settings import StageSettings

_BATCH = "it follows from prompts_per_step, prompts_per_update, num_generations and the number of processes"
_EVAL = "checkpoints are evaluated with evaluate()"
_STEP = "it is counted in steps: see save_every; every step is logged"
REFUSED = {
    "output_dir": "use --output",
    "resume_from_checkpoint": "use --resume",
    "model_name_or_path": "use --model",
    "model_revision": "the model is a local directory",
    "generation_batch_size": _BATCH,
    "steps_per_generation": _BATCH,
    "gradient_accumulation_steps": _BATCH,
    "max_steps": "it follows from steps, prompts_per_step and prompts_per_update",
    "num_train_epochs": "use steps",
    "num_iterations": "each rollout is used for one update, as in the paper",
    "max_completion_length": "use trajectory_tokens",
    "max_tool_calling_iterations": "it is max_turns minus 1",
    "generation_kwargs": "it follows from response_tokens and the tokens that are never sampled",
    "chat_template_kwargs": "the chat template belongs to the model directory; see lfpc prepare-model",
    "reward_weights": "use accuracy_weight, format_weight and so on, and the weights in reward",
    "logging_steps": _STEP,
    "logging_strategy": _STEP,
    "logging_first_step": _STEP,
    "save_steps": _STEP,
    "save_strategy": _STEP,
    "mask_truncated_completions": "TRL 1.16 crashes on a masked completion that holds a crop",
    "log_completions": "TRL 1.16 cannot write completions with pictures",
    "log_multimodal": "TRL 1.16 cannot write completions with pictures",
    "log_completions_hub_repo": "TRL 1.16 cannot write completions with pictures",
    "remove_unused_columns": "the rows are in a column that TRL would remove",
    "use_transformers_continuous_batching": "TRL 1.16 supports it for text models only",
    "use_transformers_paged": "TRL 1.16 supports it for text models only",
    "auto_find_batch_size": "GRPO needs whole groups; lower per_device_train_batch_size",
    "trust_remote_code": "code in a model directory is never run",
    "model_init_kwargs": "the model is loaded by lfpc; see dtype and attn_implementation",
    "hub_token": "nothing is uploaded, and a recipe is copied into the run's manifest",
    "load_in_4bit": "quantised weights have not been tried",
    "load_in_8bit": "quantised weights have not been tried",
    "bnb_4bit_quant_type": "quantised weights have not been tried",
    "bnb_4bit_quant_storage": "quantised weights have not been tried",
    "use_bnb_nested_quant": "quantised weights have not been tried",
    "push_to_hub": "upload the finished directory with hf upload",
    "do_train": "lfpc train trains",
    "do_eval": _EVAL,
    "do_predict": _EVAL,
    "eval_strategy": _EVAL,
    "eval_steps": _EVAL,
    "per_device_eval_batch_size": _EVAL,
    "num_generations_eval": _EVAL,
    "load_best_model_at_end": _EVAL,
    "activation_checkpointing": "its name in a recipe is gradient_checkpointing, in every version",
    "activation_checkpointing_kwargs": "its name in a recipe is gradient_checkpointing_kwargs",
}
"""Options of TRL that a recipe cannot hold, and why."""


_ALIASES = {
    "lr": "learning_rate",
    "batch_size": "per_device_train_batch_size",
    "group_size": "num_generations",
    "rollouts": "num_generations",
    "samples": "num_generations",
    "epochs": "steps",
    "num_epochs": "steps",
    "wd": "weight_decay",
    "kl": "beta",
    "kl_coef": "beta",
    "clip": "epsilon",
    "temp": "temperature",
    "max_tokens": "response_tokens",
    "max_new_tokens": "response_tokens",
    "max_length": "trajectory_tokens",
    "rank": "lora_r",
    "lora_rank": "lora_r",
    "gpus": "num_processes",
    "nproc_per_node": "num_processes",
    "vllm": "use_vllm",
    "cpu": "use_cpu",
    "lora": "use_peft",
    "scheduler": "lr_scheduler_type",
    "clip_grad": "max_grad_norm",
    "wandb": "report_to",
}
"""Names that other tools use, which are too unlike ours for a close match, such as "lr"."""
_ALWAYS_RECORDED = (
    *("num_generations", "per_device_train_batch_size", "temperature", "top_p", "top_k", "learning_rate"),
    *("lr_scheduler_type", "weight_decay", "max_grad_norm", "beta", "entropy_coef", "epsilon", "delta"),
    *("loss_type", "scale_rewards", "use_vllm", "dtype", "use_peft", "seed"),
)
"""Options of TRL that every manifest records, even at TRL's defaults, which may change."""


@dataclass(frozen=True)
class LaunchSettings:
    """Processes and machines of a run. accelerate starts the processes, torchrun on CPUs."""

    accelerate_config: str | None = dataclasses.field(
        default=None,
        metadata={"help": "a configuration that TRL ships (zero3, fsdp2, ...) or a file for accelerate"},
    )
    num_processes: int | None = dataclasses.field(
        default=None, metadata={"help": "processes on all machines; default: from the configuration, else 1"}
    )
    num_machines: int = dataclasses.field(default=1, metadata={"help": "number of machines"})
    machine_rank: int = dataclasses.field(default=0, metadata={"help": "rank of this machine, from 0"})
    main_process_ip: str | None = dataclasses.field(default=None, metadata={"help": "address of machine 0"})
    main_process_port: int | None = dataclasses.field(default=None, metadata={"help": "port on machine 0"})


OWN_DEFAULTS: dict[str, Any] = {"gradient_checkpointing": None, "report_to": "none", "disable_tqdm": True}
"""Our defaults that differ from TRL's; None is resolved once the device is known (see `grpo_config`)."""


def _options_of(config: type[Any]) -> type[Any]:
    """The options of a configuration class as a plain dataclass; the real one sets up devices on creation."""
    hints = typing.get_type_hints(config)
    options = [option for option in dataclasses.fields(config) if option.init and option.name not in REFUSED]
    return dataclasses.make_dataclass(
        config.__name__, [(option.name, hints[option.name], _copy(option)) for option in options]
    )


def _copy(option: Any) -> Any:
    if option.name in OWN_DEFAULTS:
        return dataclasses.field(default=OWN_DEFAULTS[option.name], metadata=option.metadata)
    if option.default_factory is dataclasses.MISSING:
        return dataclasses.field(default=option.default, metadata=option.metadata)
    return dataclasses.field(default_factory=option.default_factory, metadata=option.metadata)


class RecipeParser(TrlParser):  # type: ignore[misc]
    """TRL's parser with one-line errors, which checks values from a file like those of options."""

    def __init__(self, *more: type[Any], **options: Any) -> None:
        super().__init__((*more, *_classes()), allow_abbrev=False, **options)
        self.changes: Mapping[str, Any] = {}
        self.allow_code = False
        self._code_in_file: list[str] = []
        hints = typing.get_type_hints(StageSettings) | typing.get_type_hints(LaunchSettings)
        for action in self._actions:
            hint = hints.get(action.dest)
            if NoneType in typing.get_args(hint):
                action.type = _or_none(next(kind for kind in typing.get_args(hint) if kind is not NoneType))

    def error(self, message: str) -> typing.NoReturn:
        """Raise, instead of printing argparse's usage text with hundreds of options."""
        raise UserError(message)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Argparse's own has no suggestion before Python 3.15."""
        if action.choices is not None and value not in action.choices:
            raise UserError(not_one_of(f"--{action.dest}", str(value), map(str, action.choices)))

    def set_defaults_with_config(self, **values: Any) -> list[str]:
        """Make the values of a file the defaults of the options."""
        self._code_in_file = code_in(values)
        values |= self.changes
        actions = {action.dest: action for action in self._actions}
        for name, value in values.items():
            if name not in actions:
                raise_unknown_option(name, actions)
            _check_value(name, value, actions[name])
        return cast("list[str]", super().set_defaults_with_config(**values))

    def check_code(self, *, allowed: bool) -> None:
        """Reject a recipe that names code unless allowed, as its author could run code on this machine."""
        if self._code_in_file and not allowed:
            raise UserError(
                f"the recipe names code, {', '.join(self._code_in_file)}: name it on the command line, "
                "or review it and add --allow-code"
            )


def code_in(values: Mapping[str, Any]) -> list[str]:
    """The names of the user's code among the settings of a recipe's file."""
    entries = values.get("reward") or []
    entries = [entries] if isinstance(entries, str) else entries
    named = [str(each) for each in entries if not str(each).startswith(PRESETS)]
    return named + ([str(values["judge"])] if values.get("judge") else [])


def _classes() -> tuple[type[Any], ...]:
    return (StageSettings, LaunchSettings, _trainer_options(), _model_options())


@functools.cache
def _trainer_options() -> type[Any]:
    return _options_of(GRPOConfig)


@functools.cache
def _model_options() -> type[Any]:
    return _options_of(ModelConfig)


def _or_none(kind: type[Any]) -> Any:
    def parse(text: str) -> Any:
        return None if text == "none" else kind(text)

    parse.__name__ = kind.__name__  # argparse's errors show it
    return parse


def raise_unknown_option(name: str, known: Sequence[str] | Mapping[str, Any]) -> typing.NoReturn:
    """Raise an error for an unknown or fixed option, with a suggestion."""
    name = name.removeprefix("--").replace("-", "_")
    if name in REFUSED:
        raise UserError(f"{name} cannot be set: {REFUSED[name]}")
    near = _ALIASES.get(name) or nearest(name, known)
    if near is None and len(name) > 3:
        near = min((each for each in known if name in each), key=len, default=None)
    raise UserError(f"unknown setting {name}" + (f", did you mean {near}?" if near else ""))


def _check_value(name: str, value: Any, action: Any) -> None:
    """Check a value from a file: argparse checks only strings, but a file also has numbers and lists."""
    for each in value if isinstance(value, list) else [value]:
        if each is None or isinstance(each, bool | dict) or action.type is None:
            wrong = isinstance(each, bool) and action.type in (int, float)
        else:
            try:
                wrong = False
                action.type(str(each))
            except (TypeError, ValueError, argparse.ArgumentTypeError):
                wrong = True
        if wrong or (action.choices and each is not None and each not in action.choices):
            kind = getattr(action.type, "__name__", "")
            kind = "true or false" if kind == "string_to_bool" else kind
            if action.choices:
                raise UserError(not_one_of(name, str(each), map(str, action.choices)))
            raise UserError(f"{name} must be {kind}, got {each!r}")


_SETTINGS_OR_FILE = ("deepspeed", "fsdp_config", "accelerator_config")
"""Options of TRL that hold settings or the path of a JSON file with settings."""


def _check_settings_or_file(name: str, value: Any) -> None:
    if not value or isinstance(value, dict):
        return
    text = str(value)
    what = "settings" if text.startswith("{") else text
    try:
        if not text.startswith("{"):
            path = Path(text)
            if not path.is_file():
                raise UserError(f"{name} must be settings or a JSON file with settings, {text}: no such file")
            text = path.read_text(encoding="utf-8")
        content = parse_json(text)
    except (ValueError, OSError) as error:
        raise UserError(f"{name} must hold a JSON object, {what}: not readable ({one_line(error)})") from None
    if not isinstance(content, dict):
        raise UserError(f"{name} must hold a JSON object, {what}: got a {type(content).__name__}")


@dataclass(frozen=True)
class Recipe:
    """A checked recipe.

    Attributes:
        stage: settings that LFPC adds.
        launch: number of processes and machines.
        trainer: options of `GRPOConfig` that differ from TRL's defaults.
        model: options of `ModelConfig` that differ from TRL's defaults.
    """

    stage: StageSettings
    launch: LaunchSettings
    trainer: Mapping[str, Any]
    model: Mapping[str, Any]

    def option(self, name: str) -> Any:
        """The value of an option of TRL: the recipe's, else TRL's default."""
        for values, options in ((self.trainer, _trainer_options()), (self.model, _model_options())):
            if name in values:
                return values[name]
            if name in options.__dataclass_fields__:
                return getattr(options(), name)
        raise KeyError(name)

    def flat(self) -> dict[str, Any]:
        """All settings as in a recipe file, except the launch, which does not change the result."""
        recorded = {name: self.option(name) for name in _ALWAYS_RECORDED}
        return dataclasses.asdict(self.stage) | recorded | dict(self.trainer) | dict(self.model)

    def check(self, processes: int = 1) -> None:
        """Check the settings, before anything is loaded.

        Args:
            processes: number of training processes.

        Raises:
            UserError: naming the setting, its value and the rule.
        """
        self.stage.check()
        rollouts, micro = self.option("num_generations"), self.option("per_device_train_batch_size")
        if rollouts < 2:
            raise UserError(f"num_generations must be at least 2, got {rollouts}")
        if self.option("temperature") <= 0:
            raise UserError(f"temperature must be positive, got {self.option('temperature')}")
        if micro < 1:
            raise UserError(f"per_device_train_batch_size must be at least 1, got {micro}")
        if self.stage.prompts_per_update * rollouts % (micro * processes):
            raise UserError(
                f"prompts_per_update times num_generations ({self.stage.prompts_per_update * rollouts}) must "
                f"be a multiple of per_device_train_batch_size times processes ({micro} x {processes})"
            )
        if self.option("use_vllm") and self.option("use_cpu"):
            self.check_vllm_on_cpu()
        attention = self.option("attn_implementation")
        if is_kernel_of_the_hub(attention):
            raise UserError(
                "attn_implementation must be built into transformers, such as sdpa, as a kernel from the Hub "
                f"would run its code here, got {attention!r}"
            )
        for name in _SETTINGS_OR_FILE:
            _check_settings_or_file(name, self.option(name))

    def check_vllm_on_cpu(self) -> None:
        """Check that training with vLLM on a CPU never updates the weights, which its CPU build cannot.

        Raises:
            UserError: the weights would change.
        """
        if self.option("learning_rate") != 0 or self.option("vllm_mode") != "colocate":
            raise UserError(
                "use_vllm without a GPU only tests an engine: vLLM cannot update weights there, so "
                f"vllm_mode must be colocate and learning_rate 0, got {self.option('vllm_mode')} and "
                f"{self.option('learning_rate'):g}"
            )

    def grpo_config(
        self,
        output_dir: str | Path,
        *,
        never_sampled: Mapping[str, Any],
        processes: int = 1,
        cpu: bool = False,
    ) -> GRPOConfig:
        """Convert this recipe to TRL's configuration.

        Args:
            output_dir: where checkpoints go.
            never_sampled: the `generation_kwargs` that suppress tokens, from `processors.never_sampled`.
            processes: number of training processes.
            cpu: train on the CPU, in float32.

        Raises:
            UserError: an invalid setting, ours or TRL's.
        """
        self.check(processes)
        stage, options = self.stage, dict(self.trainer)
        # transformers 5.23 renamed the option and warns about the old name.
        known = GRPOConfig.__dataclass_fields__
        new = "activation_checkpointing" in known
        own = {name: value for name, value in OWN_DEFAULTS.items() if value is not None}
        for name in ("gradient_checkpointing", "gradient_checkpointing_kwargs"):
            value = options.pop(name, None)
            if name == "gradient_checkpointing":
                value = not cpu if value is None else value
            options[name.replace("gradient", "activation") if new else name] = value
        updates, rollouts = stage.updates_per_step(), self.option("num_generations")
        derived = {
            "output_dir": str(output_dir),
            "gradient_accumulation_steps": (
                stage.prompts_per_update
                * rollouts
                // (self.option("per_device_train_batch_size") * processes)
            ),
            "generation_batch_size": stage.prompts_per_step * rollouts,
            "num_iterations": 1,
            "max_steps": stage.steps * updates,
            "max_completion_length": stage.trajectory_tokens,
            "max_tool_calling_iterations": stage.max_turns - 1,
            "generation_kwargs": self._generation(never_sampled),
            "reward_weights": self.weights(),
            "mask_truncated_completions": False,
            "log_completions": False,
            "remove_unused_columns": False,
            "logging_steps": updates,
            "save_strategy": "steps",
            "save_steps": stage.save_every * updates,
        }
        if cpu:
            derived |= {"use_cpu": True, "bf16": False, "dataloader_pin_memory": False}
        try:
            return GRPOConfig(**(own | options | derived))
        except ValueError as error:
            raise UserError(one_line(error)) from error

    def weights(self) -> list[float]:
        """Weights of the reward terms."""
        from lfpc_rewards import Frame

        return self.stage.rewards(self.stage.crop_settings(Frame.SHOWN, 1))[1]

    def lora_targets(self, lora: LoraTargets) -> tuple[str | list[str], list[str] | None]:
        """PEFT's `target_modules` and `target_parameters`; the model family's if the recipe sets neither."""
        modules, parameters = (self.option(f"lora_target_{kind}") for kind in ("modules", "parameters"))
        if modules is None and parameters is None:
            return lora.modules, list(lora.parameters) or None
        # PEFT treats a string as a regex over full names, and a list as name suffixes.
        modules = modules[0] if isinstance(modules, list) and len(modules) == 1 else modules
        return modules or [], parameters

    def _generation(self, never_sampled: Mapping[str, Any]) -> dict[str, Any]:
        longest = min(self.stage.response_tokens, self.stage.trajectory_tokens)
        return {"max_tokens" if self.option("use_vllm") else "max_new_tokens": longest, **never_sampled}


def recipe_names() -> list[str]:
    """Names of the recipes in the package."""
    return sorted(
        file.name.removesuffix(".yaml") for file in _folder().iterdir() if file.name.endswith(".yaml")
    )


def recipe_file(name: str | Path) -> Path:
    """The file of a recipe, given the name of one of ours or the path of the user's.

    Raises:
        UserError: unknown recipe, or no such file.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise not_found(path)
        return path
    if str(name) in recipe_names():
        return Path(str(_folder() / f"{name}.yaml"))
    names = recipe_names()
    raise UserError(
        f"unknown recipe {str(name)!r}; choose from {', '.join(names)}, or give a .yaml file"
        f"{did_you_mean(str(name), names)}"
    )


def _folder() -> Any:
    return resources.files("lfpc_trl.train") / "recipes"


def load_recipe(name: str | Path | None = None, *, allow_code: bool = False, **changes: Any) -> Recipe:
    """Load a recipe from a file, with changes.

    Args:
        name: one of `recipe_names`, or a path; None starts from the defaults.
        allow_code: whether the file may name code, in `reward` and `judge`, which is then run.
        changes: settings that override those of the file.

    Returns:
        A checked recipe.

    Raises:
        UserError: unknown recipe, or a setting that is unknown, fixed or invalid.
    """
    parser = RecipeParser()
    parser.allow_code = allow_code or name is None  # without a file the caller has named it
    if name is None:
        parser.set_defaults_with_config(**changes)
        return recipe_of(parse(parser, []))
    parser.changes = changes
    return recipe_of(parse(parser, ["--config", str(recipe_file(name))]))


def parse(parser: RecipeParser, arguments: Sequence[str]) -> tuple[Any, ...]:
    """Parse arguments into objects of the parser's classes.

    The file of `--config` is read here rather than by TRL, which applies its key `env` before any check: that
    sets environment variables, some of which name programs that run later.

    Raises:
        UserError: an invalid recipe file, an unknown option or an invalid value.
    """
    import yaml

    words = _merged(arguments, "--reward")
    try:
        if "--config" in words:
            at = words.index("--config")
            path = Path(words[at + 1])
            del words[at : at + 2]
            parser.set_defaults_with_config(**_read_settings(path))
        *objects, unknown = parser.parse_args_into_dataclasses(
            words, return_remaining_strings=True, look_for_args_file=False
        )
    except (ValueError, yaml.YAMLError, OSError, TypeError, RecursionError) as error:
        raise UserError(f"the recipe cannot be read: {one_line(error)}") from error
    if unknown:
        raise_unknown_option(unknown[0], [action.dest for action in parser._actions])  # noqa: SLF001
    parser.check_code(
        allowed=parser.allow_code or any(getattr(each, "allow_code", False) for each in objects)
    )
    # The parser puts leftover arguments into a Namespace, which is dropped.
    return tuple(each for each in objects if not isinstance(each, argparse.Namespace))


def _merged(words: Sequence[str], option: str) -> list[str]:
    """Merge the values of an option that is given several times into its first occurrence."""
    rest: list[str] = []
    values: list[str] = []
    at: int | None = None
    behind = False
    for word in words:
        name, sign, value = word.partition("=")
        behind = name == option or (behind and not word.startswith("--"))
        if not behind:
            rest.append(word)
        elif name == option:
            at = len(rest) if at is None else at
            values += [value] if sign else []
        else:
            values.append(word)
    return rest if at is None else [*rest[:at], option, *values, *rest[at:]]


def _read_settings(path: Path) -> dict[str, Any]:
    """Read the settings of a recipe file."""
    import yaml

    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path} must map settings to values")
    if "env" in content:
        raise UserError(f"{path}: a recipe must not hold env; set environment variables when you start lfpc")
    return content


def recipe_of(objects: Sequence[Any]) -> Recipe:
    """Build the recipe from the last four parsed objects."""
    stage, launch, trainer, model = objects[-4:]
    recipe = Recipe(stage, launch, _non_default(trainer), _non_default(model))
    recipe.stage.check()
    return recipe


@functools.cache
def _parsed_defaults() -> tuple[Any, ...]:
    """The objects parsed from no arguments; they can differ from the class defaults."""
    return tuple(RecipeParser().parse_args_into_dataclasses([]))


def _non_default(options: Any) -> dict[str, Any]:
    default = next(each for each in _parsed_defaults() if type(each) is type(options))
    values = {name: getattr(options, name) for name in type(options).__dataclass_fields__}
    return {name: value for name, value in values.items() if value != getattr(default, name)}


def processes_now() -> int:
    """Number of training processes, from the variable that torchrun and accelerate set."""
    return int(os.environ.get("WORLD_SIZE", "1"))
