"""The live page of `safetrain dashboard`, served on loopback only.

server       loopback socket, uvicorn, opening the browser
access       access control: Host, Origin, cookie, a token per action; content security policy
routes       the application: the stations behind the guard
begin        model, data, samples, check, settings, start; with begin_form, begin_check, ways_out,
             uploads
jobs         one job, the queue, actions, questions, comparison; with live (the stream of a tab),
             job_texts
after        verdict, won and lost, side by side, promotion, report, plots, export; with after_texts
job_feed     shared by all tabs: the list of jobs, one gRPC watch per job
daemon_stream, forms, render, site    what the stations share
templates/   HTML, rendered here in the request's language; static/ has style, scripts and libraries
"""
