"""``d2f eval``: decoders scored by EleutherAI's lm-evaluation-harness, speed beside accuracy.

``suites`` and ``tasks`` say what is asked, ``protocol`` how, ``answers`` what came of it;
``harness`` is the only module that knows the harness. ``figures``, ``report`` and ``chart`` tell.
"""
