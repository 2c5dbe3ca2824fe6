"""Train on a small synthetic world, read the figures, and look at the candidates of one user."""

import forecart

run = forecart.run("nano", folder="runs/nano")
print(run.report_path)
print(run.report["next_advertiser"]["all"]["model"]["recall_at_10"])
print(run.candidates("advertiser", user_id="u000000001").head())
print(run.candidates("item").head())
