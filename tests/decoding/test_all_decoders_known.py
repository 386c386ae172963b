"""Whatever decodes in the packages is called by an entry of the table, or is listed here with the reason why not."""

import contextlib

from decoders import all_decoders
from decoding_calls import called_functions, decoding_functions, decoding_in

# Functions that no entry calls, by the reason.
EXCEPTIONS: dict[str, set[str]] = {
    "decoders of the table, on what has come to be signed, sealed or checked before": {
        "client/identity.py::read_identity",
        "client/model.py::load_model",
        "client/secure.py::_keyring",
        "client/secure.py::reveal",
        "deployment/enrolment.py::_public_key",
        "deployment/enrolment_key.py::certificate",
        "deployment/join/connection.py::_authority",
        "simulations/audit/secure.py::_advertisement",
        "strategies/secure_aggregation/recovery.py::put",
        "strategies/secure_aggregation/recovery.py::secret",
        "strategies/secure_aggregation/server.py::_accept_inputs",
        "strategies/secure_aggregation/server.py::_sum",
        "strategies/secure_aggregation/shamir.py::from_bytes",
    },
    "a hash, a keystream or random bytes of its own, as numbers": {
        "client/settings.py::derive_seed",
        "deployment/serve/checks.py::check_model",
        "simulations/engine.py::node_id",
        "simulations/identities.py::__call__",
        "strategies/privacy/discrete_gaussian.py::below",
        "strategies/secure_aggregation/graph.py::ring_position",
        "strategies/secure_aggregation/masks.py::mask",
        "strategies/secure_aggregation/shamir.py::uniform",
    },
    "what was encoded just before, in the same function or by its caller": {
        "client/state.py::save_samples",
        "client/windows.py::windows_entry",
        "personalization/model_files/storage.py::pack_personal_model",
        "simulations/engine.py::_over_the_wire",
        "simulations/recording.py::down",
    },
    "the answers of processes that it has started": {
        "deployment/serve/checks.py::_facts",
        "personalization/device/footprint.py::_measured",
        "simulations/comparison/engine_processes.py::_serve",
        "simulations/comparison/engine_processes.py::answer",
        "simulations/comparison/engine_ray.py::run_under_ray",
        "simulations/comparison/processes.py::_answer",
        "simulations/comparison/processes.py::call_apart",
        "simulations/comparison/work.py::from_bytes",
    },
    "files that the run of a simulation has written itself, or that are installed with the package": {
        "simulations/arms/service.py::_ask",
        "simulations/arms/service.py::_reason",
        "simulations/comparison/cell.py::_round_rows",
        "simulations/data.py::_verify_bundle",
        "simulations/evaluation.py::evaluate_client",
        "simulations/fleet.py::_first_failure",
        "simulations/fleet.py::_remove_unbegun",
        "simulations/fleet.py::_with_evaluations",
        "simulations/inference/store.py::keep",
        "simulations/privacy_budgets.py::sat_out",
        "simulations/report/comparison/markdown.py::main",
        "simulations/report/comparison/picture.py::main",
        "simulations/report/picture.py::main",
    },
    "the model that an operator chooses: transformers reads it; test_backbone.py damages it": {
        "personalization/model_files/backbone.py::_check_weights",
        "personalization/model_files/backbone.py::_read_json",
        "personalization/export/gguf_tokenizer.py::read_tokenizer",
        "personalization/vocabulary/spelling.py::_first_pairs",
        "personalization/vocabulary/spelling.py::_numbers",
        "personalization/vocabulary/cut.py::__init__",
        "simulations/canaries/needles.py::_class_names",
    },
    "a search through any bytes, as numbers: none are wrong; tests/simulations/canaries": {
        "simulations/canaries/correlation.py::views",
        "simulations/canaries/exact.py::__init__",
        "simulations/canaries/exact.py::_agreeing",
        "simulations/canaries/exact.py::_is_fragment",
        "simulations/canaries/exact.py::_windows",
        "simulations/canaries/peeling.py::_inside",
        "simulations/canaries/peeling.py::_pixels",
        "simulations/canaries/peeling.py::_zip_entry",
    },
}


def test_every_function_that_decodes_is_called_by_an_entry_or_is_an_exception(tmp_path):
    tmp_path.chmod(0o700)
    decoders = all_decoders(tmp_path)

    def call_all():
        for decoder in decoders.values():
            for raw in decoder.valid:
                with contextlib.suppress(*decoder.allowed):
                    decoder.call(raw)

    called = called_functions(call_all)
    unknown = {name for place, name in decoding_functions().items() if place not in called}
    excepted = [name for names in EXCEPTIONS.values() for name in names]
    assert len(excepted) == len(set(excepted))
    assert unknown == set(excepted)


def test_what_decodes_is_found_in_every_form():
    source = """
from safetensors.torch import load as read, save
def one(raw): return json.loads(raw)
def two(raw):
    def three(): return read(raw)
    return three
class Four:
    @staticmethod
    def four(raw): return [_HEAD.unpack_from(raw) for _ in raw]
def five(raw): return save(raw), json.dumps(raw)
def six(raw): return Plan.from_json(raw)
"""
    assert {function.name for function in decoding_in(source)} == {"one", "three", "four", "six"}
