-- A database as revision 0001 left it: a job that succeeded, one that failed, one that waits.
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE jobs (
	id VARCHAR(64) NOT NULL, 
	owner TEXT NOT NULL, 
	name TEXT NOT NULL, 
	language TEXT NOT NULL, 
	method TEXT NOT NULL, 
	source TEXT NOT NULL, 
	base TEXT, 
	seed BIGINT NOT NULL, 
	auto_promote BOOLEAN NOT NULL, 
	force BOOLEAN NOT NULL, 
	idempotency_key TEXT, 
	body_digest TEXT, 
	state VARCHAR(16) NOT NULL, 
	progress DOUBLE NOT NULL, 
	eta_s DOUBLE, 
	version TEXT, 
	clips TEXT, 
	verdict TEXT, 
	estimated_accuracy TEXT, 
	error TEXT, 
	attempts INTEGER NOT NULL, 
	created_at DOUBLE NOT NULL, 
	updated_at DOUBLE NOT NULL, 
	started_at DOUBLE, 
	ended_at DOUBLE, 
	worker TEXT, 
	token INTEGER NOT NULL, 
	lease_until DOUBLE, 
	not_before DOUBLE, 
	cancel_requested BOOLEAN NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT jobs_idempotency UNIQUE (owner, idempotency_key)
);
INSERT INTO "jobs" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','local','default','ur','nnpm','archive','1',0,0,0,'key-0','0000000000000000000000000000000000000000000000000000000000000000','succeeded',1.0,NULL,'2','{"accepted": 40, "skipped": {"no_speech": 1}, "examples": {"no_speech": ["silence.wav"]}}','improved','{"value": 0.6, "error": 0.1}',NULL,1,1.7955260241929860115e+09,1.79552602420131397244e+09,1.79552602419587588314e+09,1.79552602420131397244e+09,NULL,1,NULL,NULL,0);
INSERT INTO "jobs" VALUES('bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','local','default','ur','nnpm','archive','1',1,0,0,'key-1','0000000000000000000000000000000000000000000000000000000000000000','failed',0.5,NULL,NULL,NULL,NULL,NULL,'The uploaded archive is gone; send it again.',1,1.79552602420247101782e+09,1.79552602420496511454e+09,1.79552602420319604875e+09,1.79552602420496511454e+09,NULL,1,NULL,NULL,0);
INSERT INTO "jobs" VALUES('cccccccccccccccccccccccccccccccc','local','default','ur','nnpm','archive',NULL,2,0,0,'key-2','0000000000000000000000000000000000000000000000000000000000000000','queued',0.0,NULL,NULL,NULL,NULL,NULL,NULL,0,1.7955260242060968876e+09,1.7955260242060968876e+09,NULL,NULL,NULL,0,NULL,NULL,0);
CREATE INDEX jobs_by_state ON jobs (state, created_at);
CREATE INDEX jobs_by_owner ON jobs (owner, created_at);
COMMIT;
