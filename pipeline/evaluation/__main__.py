"""`python -m pipeline.evaluation`, the same as `talkalong evaluate`."""

from pipeline.evaluation.command import main

raise SystemExit(main())
