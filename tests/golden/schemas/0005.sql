BEGIN TRANSACTION;
CREATE TABLE artifact (
	hash TEXT NOT NULL, 
	bytes BIGINT NOT NULL, 
	media_type TEXT NOT NULL, 
	created TEXT NOT NULL, 
	CONSTRAINT pk_artifact PRIMARY KEY (hash)
);
INSERT INTO "artifact" VALUES('4d16c0c4ba4712e856099c6c0d31c6951333c5b26224bb105d72b417dfd94b26',80128,'application/x-npy','2026-11-27T05:37:52.006374+00:00');
INSERT INTO "artifact" VALUES('66231441f0d686743956ac9ba87729b44721519af5c4545e1b46301d06c995f3',80482,'application/x-npz','2026-11-27T05:37:52.032618+00:00');
CREATE TABLE bitfront_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT bitfront_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "bitfront_version" VALUES('0005');
CREATE TABLE "checkpoint" (
	study_id INTEGER NOT NULL, 
	pass_key TEXT NOT NULL, 
	position INTEGER NOT NULL, 
	data BLOB, 
	artifact TEXT, 
	CONSTRAINT pk_checkpoint PRIMARY KEY (study_id, pass_key, position), 
	CONSTRAINT fk_checkpoint_study FOREIGN KEY(study_id) REFERENCES study (id), 
	CONSTRAINT fk_checkpoint_artifact FOREIGN KEY(artifact) REFERENCES artifact (hash)
);
INSERT INTO "checkpoint" VALUES(1,'pass',3,NULL,'66231441f0d686743956ac9ba87729b44721519af5c4545e1b46301d06c995f3');
CREATE TABLE export (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	format TEXT NOT NULL, 
	folder TEXT NOT NULL, 
	bytes BIGINT NOT NULL, 
	audit JSON NOT NULL, 
	created TEXT NOT NULL, 
	CONSTRAINT pk_export PRIMARY KEY (id), 
	CONSTRAINT fk_export_trial FOREIGN KEY(study_id, trial_id) REFERENCES trial (study_id, id)
);
INSERT INTO "export" VALUES(1,1,1,'safetensors','out',5368709120,'{"ok": 1}','2026-11-27T05:37:52.123654+00:00');
CREATE TABLE identity (
	"key" TEXT NOT NULL, 
	CONSTRAINT pk_identity PRIMARY KEY ("key")
);
INSERT INTO "identity" VALUES('e7126f9231be4276ab70bd72e6f031f6');
CREATE TABLE job (
	id INTEGER NOT NULL, 
	"key" TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	study TEXT NOT NULL, 
	request JSON NOT NULL, 
	state TEXT NOT NULL, 
	attempt INTEGER NOT NULL, 
	worker TEXT, 
	lease_until DOUBLE, 
	not_before DOUBLE, 
	failures INTEGER NOT NULL, 
	stage TEXT, 
	done BIGINT NOT NULL, 
	total BIGINT NOT NULL, 
	since BIGINT NOT NULL, 
	stage_began DOUBLE, 
	progressed DOUBLE, 
	error JSON, 
	result JSON, 
	created TEXT NOT NULL, 
	updated TEXT NOT NULL, 
	CONSTRAINT pk_job PRIMARY KEY (id), 
	CONSTRAINT uq_job_key UNIQUE ("key")
);
INSERT INTO "job" VALUES(1,'43e30ecfc05a151278502e303aa8600904485f501ad263b3603b1ee207e4a506','search','golden','{"number": 0, "budgets": ["3bpw"]}','succeeded',1,NULL,NULL,NULL,0,'profiling',1,4,1,1.79575787219767451282e+09,1.79575787219767451282e+09,NULL,'{"trials": [1]}','2026-11-27T05:37:52.135671+00:00','2026-11-27T05:37:52.211716+00:00');
INSERT INTO "job" VALUES(2,'d1a424694d9d3322edf3dbf95403d3bbaa1e29b2ea168a61ddac7faf74d50a44','search','golden','{"number": 1, "budgets": ["3bpw"]}','queued',1,NULL,NULL,1.79575787722123694422e+09,1,NULL,0,0,0,NULL,NULL,'{"text": "out of memory", "hint": "use less", "unit": "a w4"}',NULL,'2026-11-27T05:37:52.146947+00:00','2026-11-27T05:37:52.221240+00:00');
INSERT INTO "job" VALUES(3,'56aa69408a149c7d3ac19aca9340415f35625c8d8e548d190b256c0a88291570','search','golden','{"number": 2, "budgets": ["3bpw"]}','paused',1,'w2',1.79575793218789386751e+09,NULL,0,'refining',3,20,3,1.79575787222846651076e+09,1.79575787222846651076e+09,NULL,NULL,'2026-11-27T05:37:52.155660+00:00','2026-11-27T05:37:52.240504+00:00');
CREATE TABLE job_event (
	job_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	created TEXT NOT NULL, 
	details JSON NOT NULL, 
	CONSTRAINT pk_job_event PRIMARY KEY (job_id, number), 
	CONSTRAINT fk_job_event_job FOREIGN KEY(job_id) REFERENCES job (id)
);
INSERT INTO "job_event" VALUES(1,1,'submitted','2026-11-27T05:37:52.138799+00:00','{}');
INSERT INTO "job_event" VALUES(2,1,'submitted','2026-11-27T05:37:52.147940+00:00','{}');
INSERT INTO "job_event" VALUES(3,1,'submitted','2026-11-27T05:37:52.156844+00:00','{}');
INSERT INTO "job_event" VALUES(1,2,'claimed','2026-11-27T05:37:52.166417+00:00','{"worker": "w0", "attempt": 1}');
INSERT INTO "job_event" VALUES(2,2,'claimed','2026-11-27T05:37:52.181211+00:00','{"worker": "w1", "attempt": 1}');
INSERT INTO "job_event" VALUES(3,2,'claimed','2026-11-27T05:37:52.189383+00:00','{"worker": "w2", "attempt": 1}');
INSERT INTO "job_event" VALUES(1,3,'stage','2026-11-27T05:37:52.198251+00:00','{"stage": "profiling"}');
INSERT INTO "job_event" VALUES(1,4,'succeeded','2026-11-27T05:37:52.211532+00:00','{}');
INSERT INTO "job_event" VALUES(2,3,'retry','2026-11-27T05:37:52.220974+00:00','{"text": "out of memory", "hint": "use less", "unit": "a w4", "seconds": 5.0}');
INSERT INTO "job_event" VALUES(3,3,'stage','2026-11-27T05:37:52.228873+00:00','{"stage": "refining"}');
INSERT INTO "job_event" VALUES(3,4,'paused','2026-11-27T05:37:52.242251+00:00','{}');
CREATE TABLE measurement (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	profiler TEXT NOT NULL, 
	settings TEXT NOT NULL, 
	layer TEXT NOT NULL, 
	scheme TEXT NOT NULL, 
	seconds DOUBLE, 
	CONSTRAINT pk_measurement PRIMARY KEY (id), 
	CONSTRAINT fk_measurement_study FOREIGN KEY(study_id) REFERENCES study (id), 
	CONSTRAINT uq_measurement_study_id_profiler_settings_layer_scheme UNIQUE (study_id, profiler, settings, layer, scheme)
);
INSERT INTO "measurement" VALUES(1,1,'fisher','5e77','blocks.0.fc','w4g32+gptq',1.5);
INSERT INTO "measurement" VALUES(2,1,'mse','','kopf ü''"%','w8',0.0);
CREATE TABLE measurement_value (
	measurement_id INTEGER NOT NULL, 
	metric TEXT NOT NULL, 
	value DOUBLE, 
	stderr DOUBLE, 
	samples BIGINT NOT NULL, 
	CONSTRAINT pk_measurement_value PRIMARY KEY (measurement_id, metric), 
	CONSTRAINT fk_measurement_value_measurement FOREIGN KEY(measurement_id) REFERENCES measurement (id)
);
INSERT INTO "measurement_value" VALUES(1,'kl',0.1,0.01,32);
INSERT INTO "measurement_value" VALUES(1,'cross_entropy',-1.0e-300,NULL,32);
INSERT INTO "measurement_value" VALUES(2,'mse',9e999,0.0,1);
CREATE TABLE "measurement_vector" (
	measurement_id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	data BLOB, 
	artifact TEXT, 
	CONSTRAINT pk_measurement_vector PRIMARY KEY (measurement_id, name), 
	CONSTRAINT fk_measurement_vector_measurement FOREIGN KEY(measurement_id) REFERENCES measurement (id), 
	CONSTRAINT fk_measurement_vector_artifact FOREIGN KEY(artifact) REFERENCES artifact (hash)
);
INSERT INTO "measurement_vector" VALUES(1,'kl',X'934E554D5059010076007B276465736372273A20273C6634272C2027666F727472616E5F6F72646572273A2046616C73652C20277368617065273A2028342C292C207D2020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020200ACDCCCC3D0000C07F0000807F00000080',NULL);
INSERT INTO "measurement_vector" VALUES(1,'half',X'934E554D5059010076007B276465736372273A20273C6632272C2027666F727472616E5F6F72646572273A2046616C73652C20277368617065273A2028322C2033292C207D202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020200A003C0041003C0041003C0041',NULL);
INSERT INTO "measurement_vector" VALUES(2,'large',NULL,'4d16c0c4ba4712e856099c6c0d31c6951333c5b26224bb105d72b417dfd94b26');
CREATE TABLE selection (
	study_id INTEGER NOT NULL, 
	request_key TEXT NOT NULL, 
	trial_id INTEGER NOT NULL, 
	details JSON NOT NULL, 
	created TEXT NOT NULL, 
	CONSTRAINT pk_selection PRIMARY KEY (study_id, request_key), 
	CONSTRAINT fk_selection_trial FOREIGN KEY(study_id, trial_id) REFERENCES trial (study_id, id)
);
INSERT INTO "selection" VALUES(1,'3bpw',1,'{"rounds": 2}','2026-11-27T05:37:52.107802+00:00');
CREATE TABLE study (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	created TEXT NOT NULL, 
	fingerprint JSON NOT NULL, 
	settings JSON NOT NULL, 
	CONSTRAINT pk_study PRIMARY KEY (id), 
	CONSTRAINT uq_study_name UNIQUE (name)
);
INSERT INTO "study" VALUES(1,'golden','2026-11-27T05:37:51.945946+00:00','{"weights": "sha256:ab", "text": "32 lines"}','{"seed": 7}');
CREATE TABLE trial (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	"key" TEXT NOT NULL, 
	measured_by TEXT NOT NULL, 
	created TEXT NOT NULL, 
	solver TEXT NOT NULL, 
	predicted DOUBLE, 
	bound DOUBLE, 
	seconds DOUBLE, 
	settings JSON NOT NULL, 
	CONSTRAINT pk_trial PRIMARY KEY (id), 
	CONSTRAINT fk_trial_study FOREIGN KEY(study_id) REFERENCES study (id), 
	CONSTRAINT uq_trial_study_id_id UNIQUE (study_id, id), 
	CONSTRAINT uq_trial_study_id_key_measured_by UNIQUE (study_id, "key", measured_by)
);
INSERT INTO "trial" VALUES(1,1,'99c836c88583cdee4445137c2d014d09c087f050e5f9ffea5367353fa18a0092','by hand','2026-11-27T05:37:52.040010+00:00','ilp',0.4,-9e999,2.0,'{"budgets": ["3.5bpw"], "seed": 0}');
INSERT INTO "trial" VALUES(2,1,'cd8de32612a95c3a976904f5b098f4c868e958ae48a020914933bd9708f72006','by hand','2026-11-27T05:37:52.083947+00:00','uniform',NULL,0.0,0.5,'{}');
CREATE TABLE trial_cost (
	trial_id INTEGER NOT NULL, 
	resource TEXT NOT NULL, 
	value DOUBLE, 
	CONSTRAINT pk_trial_cost PRIMARY KEY (trial_id, resource), 
	CONSTRAINT fk_trial_cost_trial FOREIGN KEY(trial_id) REFERENCES trial (id)
);
INSERT INTO "trial_cost" VALUES(1,'bytes',1000000001.0);
INSERT INTO "trial_cost" VALUES(1,'seconds@cpu:b1',NULL);
INSERT INTO "trial_cost" VALUES(2,'bytes',2.0);
CREATE TABLE trial_layer (
	trial_id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	layer TEXT NOT NULL, 
	scheme TEXT NOT NULL, 
	CONSTRAINT pk_trial_layer PRIMARY KEY (trial_id, position), 
	CONSTRAINT fk_trial_layer_trial FOREIGN KEY(trial_id) REFERENCES trial (id)
);
INSERT INTO "trial_layer" VALUES(1,0,'z','w4');
INSERT INTO "trial_layer" VALUES(1,1,'a','keep');
INSERT INTO "trial_layer" VALUES(2,0,'z','w8');
CREATE TABLE trial_metric (
	trial_id INTEGER NOT NULL, 
	metric TEXT NOT NULL, 
	value DOUBLE, 
	stderr DOUBLE, 
	samples BIGINT NOT NULL, 
	CONSTRAINT pk_trial_metric PRIMARY KEY (trial_id, metric), 
	CONSTRAINT fk_trial_metric_trial FOREIGN KEY(trial_id) REFERENCES trial (id)
);
INSERT INTO "trial_metric" VALUES(1,'kl',0.5,0.01,64);
CREATE TABLE "trial_vector" (
	trial_id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	data BLOB, 
	artifact TEXT, 
	CONSTRAINT pk_trial_vector PRIMARY KEY (trial_id, name), 
	CONSTRAINT fk_trial_vector_trial FOREIGN KEY(trial_id) REFERENCES trial (id), 
	CONSTRAINT fk_trial_vector_artifact FOREIGN KEY(artifact) REFERENCES artifact (hash)
);
INSERT INTO "trial_vector" VALUES(1,'kl',X'934E554D5059010076007B276465736372273A20273C6634272C2027666F727472616E5F6F72646572273A2046616C73652C20277368617065273A2028342C292C207D2020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020200ACDCCCC3D0000C07F0000807F00000080',NULL);
INSERT INTO "trial_vector" VALUES(1,'half',X'934E554D5059010076007B276465736372273A20273C6632272C2027666F727472616E5F6F72646572273A2046616C73652C20277368617065273A2028322C2033292C207D202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020200A003C0041003C0041003C0041',NULL);
INSERT INTO "trial_vector" VALUES(2,'kl',X'934E554D5059010076007B276465736372273A20273C6634272C2027666F727472616E5F6F72646572273A2046616C73652C20277368617065273A2028342C292C207D2020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020200ACDCCCC3D0000C07F0000807F00000080',NULL);
INSERT INTO "trial_vector" VALUES(2,'half',X'934E554D5059010076007B276465736372273A20273C6632272C2027666F727472616E5F6F72646572273A2046616C73652C20277368617065273A2028322C2033292C207D202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020200A003C0041003C0041003C0041',NULL);
CREATE TABLE worker (
	name TEXT NOT NULL, 
	host TEXT NOT NULL, 
	version TEXT NOT NULL, 
	started TEXT NOT NULL, 
	seen DOUBLE NOT NULL, 
	lease DOUBLE NOT NULL, 
	CONSTRAINT pk_worker PRIMARY KEY (name)
);
INSERT INTO "worker" VALUES('w2','gpu-1','0.1.0','2026-01-01T00:00:00.000000+00:00',1.79575787225876188279e+09,3200000000.0);
CREATE INDEX ix_export_study_id ON export (study_id);
CREATE INDEX ix_measurement_value_metric_value ON measurement_value (metric, value);
CREATE INDEX ix_trial_cost_resource_value ON trial_cost (resource, value);
CREATE INDEX ix_trial_metric_metric_value ON trial_metric (metric, value);
CREATE INDEX ix_job_state_id ON job (state, id);
CREATE INDEX ix_job_study ON job (study);
CREATE INDEX ix_checkpoint_artifact ON checkpoint (artifact);
CREATE INDEX ix_measurement_vector_artifact ON measurement_vector (artifact);
CREATE INDEX ix_trial_vector_artifact ON trial_vector (artifact);
CREATE INDEX ix_job_worker ON job (worker);
COMMIT;
