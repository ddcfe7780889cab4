"""Starts, watches and stops the processes on one machine: for `make demo`, for `make up`, and for the system tests.

* `ports`: which port each process takes, and whether it is free
* `services`: the processes and their environment
* `endpoints`: where they are, for whoever talks to them
* `stack`: start them, know when they are ready, start again what dies, stop them in order
* `walkthrough`: a demo account, a demo key and the first turns, shown as they happen
* `grpcurl`, `reflection`: what grpcurl prints, with it or without it
* `operator`: accounts, keys and limits over REST
* `envfile`: `.demo/demo.env`, for scripts
"""
