BEGIN TRANSACTION;
CREATE TABLE bitfront_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT bitfront_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "bitfront_version" VALUES('0001');
CREATE TABLE checkpoint (
	study_id INTEGER NOT NULL, 
	pass_key TEXT NOT NULL, 
	position INTEGER NOT NULL, 
	data BLOB NOT NULL, 
	CONSTRAINT pk_checkpoint PRIMARY KEY (study_id, pass_key, position), 
	CONSTRAINT fk_checkpoint_study FOREIGN KEY(study_id) REFERENCES study (id)
);
INSERT INTO "checkpoint" VALUES(1,'pass',3,X'504B030414000000000031147B5DA0C5BEBF980000009800000005000000732E6E7079934E554D5059010076007B276465736372273A20273C6938272C2027666F727472616E5F6F72646572273A2046616C73652C20277368617065273A2028332C292C207D2020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020200A0100000000000000FEFFFFFFFFFFFFFF0000000000010000504B0102140314000000000031147B5DA0C5BEBF9800000098000000050000000000000000000000800100000000732E6E7079504B0506000000000100010033000000BB0000000000');
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
INSERT INTO "export" VALUES(1,1,1,'safetensors','out',5368709120,'{"ok": 1}','2026-11-27T02:33:35.930899+00:00');
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
CREATE TABLE measurement_vector (
	measurement_id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	data BLOB NOT NULL, 
	CONSTRAINT pk_measurement_vector PRIMARY KEY (measurement_id, name), 
	CONSTRAINT fk_measurement_vector_measurement FOREIGN KEY(measurement_id) REFERENCES measurement (id)
);
INSERT INTO "measurement_vector" VALUES(1,'kl',X'934E554D5059010076007B276465736372273A20273C6634272C2027666F727472616E5F6F72646572273A2046616C73652C20277368617065273A2028342C292C207D2020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020200ACDCCCC3D0000C07F0000807F00000080');
INSERT INTO "measurement_vector" VALUES(1,'half',X'934E554D5059010076007B276465736372273A20273C6632272C2027666F727472616E5F6F72646572273A2046616C73652C20277368617065273A2028322C2033292C207D202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020200A003C0041003C0041003C0041');
CREATE TABLE selection (
	study_id INTEGER NOT NULL, 
	request_key TEXT NOT NULL, 
	trial_id INTEGER NOT NULL, 
	details JSON NOT NULL, 
	created TEXT NOT NULL, 
	CONSTRAINT pk_selection PRIMARY KEY (study_id, request_key), 
	CONSTRAINT fk_selection_trial FOREIGN KEY(study_id, trial_id) REFERENCES trial (study_id, id)
);
INSERT INTO "selection" VALUES(1,'3bpw',1,'{"rounds": 2}','2026-11-27T02:33:35.918849+00:00');
CREATE TABLE study (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	created TEXT NOT NULL, 
	fingerprint JSON NOT NULL, 
	settings JSON NOT NULL, 
	CONSTRAINT pk_study PRIMARY KEY (id), 
	CONSTRAINT uq_study_name UNIQUE (name)
);
INSERT INTO "study" VALUES(1,'golden','2026-11-27T02:33:35.859919+00:00','{"weights": "sha256:ab", "text": "32 lines"}','{"seed": 7}');
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
INSERT INTO "trial" VALUES(1,1,'99c836c88583cdee4445137c2d014d09c087f050e5f9ffea5367353fa18a0092','by hand','2026-11-27T02:33:35.902712+00:00','ilp',0.4,-9e999,2.0,'{"budgets": ["3.5bpw"], "seed": 0}');
INSERT INTO "trial" VALUES(2,1,'cd8de32612a95c3a976904f5b098f4c868e958ae48a020914933bd9708f72006','by hand','2026-11-27T02:33:35.914872+00:00','uniform',NULL,0.0,0.5,'{}');
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
CREATE INDEX ix_export_study_id ON export (study_id);
CREATE INDEX ix_measurement_value_metric_value ON measurement_value (metric, value);
CREATE INDEX ix_trial_cost_resource_value ON trial_cost (resource, value);
CREATE INDEX ix_trial_metric_metric_value ON trial_metric (metric, value);
COMMIT;
