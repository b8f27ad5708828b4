"""The global model at the hospital, and the hospital's patients as the model takes them."""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from client.site import Site
from client.worker.encoding import encode_patients
from client.worker.run_state import NeedsWeightsError, RunState, missing_parts
from client.worker.tensor_cache import forget_oldest, write_tensors
from shared_model.config import Settings
from shared_model.errors import ProtocolError
from shared_model.model.batch import Batch
from shared_model.model.fusion import Embeddings, MultimodalModel, empty_model
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.protocol.messages import Part, TrainRequest, WholeModelRequest
from shared_model.splits import Split
from shared_model.training.epochs import Encoded, Rows, Source, choose_device, encode
from shared_model.training.updates import Weights, hash_weights, to_arrays, to_tensors

KEPT_NETWORKS = 3


@dataclass(frozen=True)
class LocalModel:
    """A model on the hospital's device, able to encode the hospital's patients.

    Attributes:
        model: NaN in every weight that was not loaded, so that a forgotten one shows.
        site: the hospital.
        split: its training, validation and test rows.
        preprocessing: the common one.
        device: where the model is.
        networks_sha256: hash of the model's fixed networks.
    """

    model: MultimodalModel
    site: Site
    split: Split
    preprocessing: Preprocessing
    device: torch.device
    networks_sha256: str

    def load_networks(self, networks: Weights) -> None:
        """Put the fixed networks into the model: those of a message, which are kept, or the kept ones if none came.

        Raises:
            NeedsWeightsError: they did not come and are not kept.
            ProtocolError: they do not fit the model, or have another hash than the question names.
        """
        names = self.model.fixed_networks()
        path = self.site.state_dir / "networks" / f"{self.networks_sha256}.safetensors"
        if networks or not names:
            if hash_weights(networks) != self.networks_sha256:
                raise ProtocolError("networks: expected the hash that the question names, got another.")
            self.check(networks, names)
            self.model.set_weights(to_tensors(networks))
            if names and not path.exists():
                write_tensors(path, to_tensors(networks))
                forget_oldest(path.parent.glob("*.safetensors"), keep=KEPT_NETWORKS)
            return
        try:
            kept = load_file(path)
            path.touch()
        except (OSError, SafetensorError) as error:
            raise NeedsWeightsError("networks: not held here. Send them with the question.") from error
        self.model.set_weights(kept)

    def load(self, weights: Weights, expected: Iterable[str]) -> None:
        """Put weights from a message into the model.

        Raises:
            ProtocolError: a name is missing or unknown, a shape differs, or a value is not finite.
        """
        self.check(weights, expected)
        self.model.set_weights(to_tensors(weights))

    def check(self, weights: Weights, expected: Iterable[str]) -> None:
        """That weights from a message fit the model.

        Raises:
            ProtocolError: a name is missing or unknown, a shape differs, or a value is not finite.
        """
        state, names = self.model.state_dict(), set(expected)
        if names != set(weights):
            raise ProtocolError(
                f"weights: expected the {len(names)} agreed names, got {len(weights)}, "
                f"{len(names ^ set(weights))} of them missing or unknown."
            )
        for name, value in weights.items():
            if tuple(state[name].shape) != value.shape or not np.isfinite(value).all():
                raise ProtocolError(f"weights, {name}: expected finite values of shape {tuple(state[name].shape)}.")

    def encode_all(self, rows: Rows, known: Embeddings | None = None) -> Encoded:
        """Embeddings in eval mode, without gradients; `known` ones of these rows are not computed again."""
        return encode_patients(
            self.site, self.model, self.preprocessing, rows, networks_sha256=self.networks_sha256, known=known
        )

    def rows(self, part: Part) -> Rows:
        """Rows of one part of the patients."""
        return {"train": self.split.train, "val": self.split.val, "test": self.split.test}[part]

    def encoding_source(self, rows: Rows, known: Embeddings | None = None) -> Source:
        """Embeddings of chosen positions of `rows`, computed afresh with gradients, but for those `known`."""
        before = known or {}

        def source(chosen: Rows) -> Encoded:
            index = torch.from_numpy(chosen).to(self.device)
            of_chosen = {name: value[index] for name, value in before.items()}
            return encode(self.model, self.batch(rows[chosen], known=before), device=self.device, known=of_chosen)

        return source

    def batch(self, rows: Rows, known: Collection[str] = ()) -> Batch:
        """Inputs of some patients; without the images whose embeddings are `known`."""
        return self.preprocessing.batch(
            self.site.patients, rows, schema=self.site.schema, device=self.device, without=known
        )


def embedding_key(
    site: Site, preprocessing: Preprocessing, *, encoders: Collection[str], weights: tuple[object, ...]
) -> str:
    """Name of kept embeddings: which encoders made them, their weights, the preprocessing, and the patients.

    Args:
        site: the hospital.
        preprocessing: the common one.
        encoders: modalities whose embeddings are kept. Encoders without weights of their own, such as that of numbers,
            do not show in a hash of weights.
        weights: what tells the encoders' weights: hashes, and the rounds that this hospital's own are from.
    """
    patients = site.patients
    images = [site.image_hash(name) for name in sorted(site.schema.images)]
    holds = (sorted(encoders), weights, preprocessing.to_json(), patients.patient_ids, images)
    digest = hashlib.sha256(repr(holds).encode())
    tables = *(patients.raw[name] for name in site.schema.tables), *patients.present.values()
    for table in (patients.outcome, patients.numbers, patients.levels, *tables):
        digest.update(np.ascontiguousarray(table).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class GivenModel:
    """A whole model that a question is about, and the patients in question as its fusion sees them.

    Attributes:
        local: the model, all weights loaded.
        rows: of the patients.
        encoded: their embeddings.
    """

    local: LocalModel
    rows: Rows
    encoded: Encoded


def open_whole_model(site: Site, settings: Settings, request: WholeModelRequest) -> LocalModel:
    """The model of a question; its weights are kept, so the next question about it need not carry them.

    Raises:
        NeedsWeightsError: the weights did not come and are not kept.
        ProtocolError: the weights do not fit the model, or are not those that the question names.
    """
    local = open_local_model(site, settings, request)
    local.load_networks(request.networks)
    state = RunState.of(site.state_dir, request.study.run_id)
    names = local.model.changing_names()
    if request.weights:
        local.load(request.weights, names)
        tensors = local.model.state_dict()
        if hash_weights(to_arrays(tensors, local.model.learned_names())) != request.weights_sha256:
            raise ProtocolError("weights: expected the hash that the question names, got another.")
        state.save_weights(request.weights_sha256, {name: tensors[name] for name in names})
    else:
        local.model.set_weights(state.load_weights(request.weights_sha256))
    own = state.load_home(local.model, before_round=request.weights_round, discarded=request.discarded)
    if missing := missing_parts(local.model, own, request.trained_phases):
        raise ProtocolError(
            f"{missing}: expected this hospital's own, got none. Only a hospital that trained has such a model."
        )
    return local


def open_given_model(site: Site, settings: Settings, request: WholeModelRequest) -> GivenModel:
    """As `open_whole_model`, with the embeddings of the patients in question, which are kept as well.

    Raises:
        NeedsWeightsError: the weights did not come and are not kept.
        ProtocolError: the weights do not fit the model, or are not those that the question names.
    """
    local = open_whole_model(site, settings, request)
    state = RunState.of(site.state_dir, request.study.run_id)
    rows = local.rows(request.part)
    key = embedding_key(
        site,
        local.preprocessing,
        encoders=local.model.modalities,
        weights=(request.weights_sha256, request.weights_round, request.discarded),
    )
    encoded = state.load_embeddings(request.part, key, device=local.device)
    if encoded is None:
        encoded = local.encode_all(rows)
        state.save_embeddings(request.part, key, encoded)
    return GivenModel(local, rows, encoded)


def open_local_model(site: Site, settings: Settings, request: TrainRequest | WholeModelRequest) -> LocalModel:
    """A model without weights, on the hospital's device.

    Args:
        site: the hospital.
        settings: of the run.
        request: names the common preprocessing and the fixed networks.

    Raises:
        SettingsError: the device is not there.
    """
    torch.set_num_threads(settings.threads)
    device = choose_device(settings.device)
    model = empty_model(site.schema, settings, device=device)
    if device.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
    return LocalModel(
        model=model,
        site=site,
        split=site.split(settings),
        preprocessing=Preprocessing.from_json(request.preprocessing),
        device=device,
        networks_sha256=request.networks_sha256,
    )
