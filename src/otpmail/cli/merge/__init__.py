"""`otpmail merge`: one mail for each row of a CSV file, from a template, over the stream SendMails.

`command` reads the options. `csv_source` checks the file and makes the requests. `run` sends them and takes results,
which `journal` and `error_report` keep in files, and `progress` and `summary` show.
"""
