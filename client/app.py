"""The Flower ClientApp: `flwr run` and a SuperNode start it, and the simulations start the same one in process."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from client.data import Config, ConfigValue, PrivateData, load_private_data
from client.egress import egress_guard
from client.state import ClientState


def make_app(
    load: PrivateData | None = None,
    *,
    config: Mapping[str, ConfigValue] | None = None,
    personalize: Callable[..., Any] | None = None,
    identify: Callable[[Config], Any] | None = None,
    tamper: Callable[..., Any] | None = None,
    noise: Callable[..., Any] | None = None,
) -> ClientApp:
    """Return the ClientApp.

    load: where the private samples come from; as a rule, `load_private_data`. config: values that come before those of
    Flower's run configuration. personalize: called instead of `personalization.pipeline.personalize`, with the same
    arguments. identify: who a node is in secure sums, by its configuration; as a rule, what its node file says. tamper:
    puts another vector in the place of a client's, see client/work.py; for simulations of clients that lie. noise: what
    a client's share of noise is drawn from, by its configuration and the plan; as a rule the operating system, for
    simulations a seed.
    """
    from client.backbone import BackboneShelf

    shelf = BackboneShelf()
    app = ClientApp(mods=[_with_config(config or {}), egress_guard])

    def answer_message(message: Message, context: Context, *, final: bool) -> Message:
        from client.identity import read_identity
        from client.work import Device, Substitutes, answer

        state = ClientState.of(context)
        device = Device(
            state=state,
            shelf=shelf,
            name=_client_name(context),
            node_config=context.node_config,
            run_config=context.run_config,
            load=load or partial(load_private_data, state=state),
            identify=identify or read_identity,
            substitutes=Substitutes(personalize=personalize, tamper=tamper, noise=noise),
        )
        with state.exclusive():
            content = answer(message.content, device, final=final)
        return Message(content, reply_to=message)

    # The server asks in rounds to train, and in its final pass to evaluate.
    app.train()(partial(answer_message, final=False))
    app.evaluate()(partial(answer_message, final=True))
    return app


def _with_config(config: Mapping[str, ConfigValue]) -> Callable[[Message, Context, ClientAppCallable], Message]:
    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        own = Context(
            run_id=context.run_id,
            node_id=context.node_id,
            node_config=context.node_config,
            state=context.state,
            run_config={**context.run_config, **config},
        )
        return call_next(message, own)

    return mod


def _client_name(context: Context) -> str:
    """Return what tells this client's random numbers from another's, the same in every run.

    A deployed node has the name of its node file, a simulated one its partition; a simulation that is to repeat what a
    deployed fleet did gives its clients the same names. Flower's own number is drawn anew with every registration.
    """
    own: Config = context.node_config
    return str(own.get("client-name") or own.get("partition-id", context.node_id))


app = make_app()
