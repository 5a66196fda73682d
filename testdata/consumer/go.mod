module example.com/consumer

go 1.25

require github.com/inlookup/inlookup v0.0.0

require (
	filippo.io/edwards25519 v1.2.0 // indirect
	github.com/go-sql-driver/mysql v1.10.1 // indirect
)

replace github.com/inlookup/inlookup => ../..
