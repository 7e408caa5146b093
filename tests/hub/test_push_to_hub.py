"""`push_to_hub` as users know it, which keeps the card of the folder or repository a model came from."""

from pathlib import Path

from huggingface_hub import ModelCard

from tests.hub.conftest import ROOT, run_python
from tests.hub.server import HubServer

PUSH = """
import sys
import modeling_rabtriever
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1])
model.push_to_hub("org/pushed", tags=["mine"])
model.push_to_hub("org/pushed", revision="next")
AutoModel.from_pretrained("org/pushed").push_to_hub("org/again")
text_config = model.config.text_config.to_dict()
fresh = modeling_rabtriever.RabtrieverModel(modeling_rabtriever.RabtrieverConfig(text_config=text_config))
fresh.processor = model.processor
fresh.push_to_hub("org/fresh")
"""


def test_push_to_hub_keeps_the_card(hub: HubServer, finished_run: Path, tmp_path: Path) -> None:
    folder = finished_run / "teacher" / "model"
    done = run_python(hub, tmp_path / "home", "-c", PUSH, str(folder), PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    own = ModelCard.load(folder / "README.md")
    for name in ("org/pushed", "org/again"):
        repository = hub.repositories[name]
        card = ModelCard(repository.files()["README.md"].content.decode())
        assert card.text == own.text and card.data.eval_results == own.data.eval_results
        assert card.data.tags == [*own.data.tags, "mine"]
        assert {"model.safetensors", "modeling_prompted.py", "processor_config.json"} <= set(repository.files())
    pushed = hub.repositories["org/pushed"]
    assert set(pushed.branches) == {"main", "next"}
    main, other = ({**pushed.files(branch)} for branch in pushed.branches)
    assert main.pop("README.md") != other.pop("README.md") and main == other  # the tag was asked for once
    assert len(hub.repositories["org/again"].history) == 3  # the empty one, the model, and its card
    # A student made here has no card yet, and does not take its teacher's for one.
    fresh = hub.repositories["org/fresh"].files()["README.md"].content.decode()
    assert "automatically generated" in fresh and own.text not in fresh
