"""The process that serves one lease's model: warmed up as a spare, bound to one image, ended with its lease.

``python -m agent.runner --control-fd N`` is the process, ``process`` its life, ``app`` its HTTP face,
``requests`` what a borrower may ask, ``engine`` the model that answers, ``adapter`` everything that knows
transformers' insides. ``python -m agent.runner.check FOLDER`` says before a publication whether a folder's
model could be served.
"""
