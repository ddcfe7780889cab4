"""The control API: owns accounts, refreshes their tokens once for everybody, polls their usage, and tells the admission
server what it may grant.

* `accounts`, `refresh`, `usage`, `keys`, `limits`, `push`: each `models` · `service` · `routes` (· `worker`)
* `app`: composition root   * `serving`: the process   * `settings`: environment
* `database`, `controller_lock`, `migrations`: SQLite (or PostgreSQL) and the one controller of it
* `auth`, `dashboard_lane`, `body_limit`: what a request passes before a route sees it
* `errors`: one tree, one table   * `vault`, `made_secrets`: secrets   * `changes`: what must be pushed
* `cumulative`: counts that are told again and again, as totals
"""
